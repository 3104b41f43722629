"""Readers of panoptic data on disk, and the transforms that read and pack its annotations."""

from opsin.segmentation.panoptic.datasets.coco_panoptic import (
    CocoPanoptic,
    LoadPanoptic,
    PackPanoptic,
    check_ids,
    read_ids,
)

__all__ = ["CocoPanoptic", "LoadPanoptic", "PackPanoptic", "check_ids", "read_ids"]
