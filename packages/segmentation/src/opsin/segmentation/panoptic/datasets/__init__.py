"""Readers of panoptic data on disk, and the transforms that read and pack its annotations."""

from opsin.segmentation.panoptic.datasets.coco_panoptic import (
    CocoPanoptic,
    LoadPanoptic,
    PackPanoptic,
    check_ids,
    read_ids,
)
from opsin.segmentation.panoptic.datasets.mask_regions import RegionsAsObjects

__all__ = ["CocoPanoptic", "LoadPanoptic", "PackPanoptic", "RegionsAsObjects", "check_ids", "read_ids"]
