"""Medical pictures and volumes with labels, in the layouts that people have them in."""

from opsin.medical.segmentation.datasets.dataset import MedicalDataset
from opsin.medical.segmentation.datasets.mni152 import MNI152Slices
from opsin.medical.segmentation.datasets.pictures import ImageMaskDataset, SliceDataset
from opsin.medical.segmentation.datasets.sample import SegmentationSample
from opsin.medical.segmentation.datasets.synapse import SynapseDataset
from opsin.medical.segmentation.datasets.transforms import (
    MonaiTransforms,
    OneAngleRotation,
    PackMedical,
    RandomAxialSlice,
    RandomTurnOrRotation,
    StretchIntensity,
    ZoomSlice,
)
from opsin.medical.segmentation.datasets.volumes import VolumeDataset

__all__ = [
    "ImageMaskDataset",
    "MNI152Slices",
    "MedicalDataset",
    "MonaiTransforms",
    "OneAngleRotation",
    "PackMedical",
    "RandomAxialSlice",
    "RandomTurnOrRotation",
    "SegmentationSample",
    "SliceDataset",
    "StretchIntensity",
    "SynapseDataset",
    "VolumeDataset",
    "ZoomSlice",
]
