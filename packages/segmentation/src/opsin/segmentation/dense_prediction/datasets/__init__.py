"""Readers of depth, normals and classes on disk, their augmentation, and what packs them."""

from opsin.segmentation.datasets import LoadMask
from opsin.segmentation.dense_prediction.datasets.augment import (
    RandomCropDense,
    RandomFlipDense,
    RandomScaleDense,
)
from opsin.segmentation.dense_prediction.datasets.coco_instances import CocoInstances
from opsin.segmentation.dense_prediction.datasets.cut_depth import CutDepth
from opsin.segmentation.dense_prediction.datasets.nyuv2 import LoadDepth, LoadNormals, NYUv2, PackDense

__all__ = [
    "CocoInstances",
    "CutDepth",
    "LoadDepth",
    "LoadMask",
    "LoadNormals",
    "NYUv2",
    "PackDense",
    "RandomCropDense",
    "RandomFlipDense",
    "RandomScaleDense",
]
