"""Panoptic targets from an index mask, whose pixels have a class but no object."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.registry import TRANSFORMS
from opsin.segmentation.panoptic.datasets.coco_panoptic import Results, boxes_around


@TRANSFORMS.register_module()
class RegionsAsObjects(BaseTransform):
    """Each connected region of a thing class in `gt_seg_map` becomes an object.

    Objects that touch are one, and one that is hidden in the middle is two: enough to train a panoptic
    network for semantic maps, not to count. It stands after the transforms that change the picture. Adds what
    `LoadPanoptic` adds.

    Args:
        things: the first so many classes are things.
        min_area: smaller regions, in pixels, are no objects.
    """

    def __init__(self, things: int, min_area: int = 16) -> None:
        self.things, self.min_area = things, min_area

    def transform(self, results: Results) -> Results:
        """Adds the objects to `results`."""
        semantic = results["gt_seg_map"]
        found = [
            (label, mask)
            for label in range(self.things)
            for mask in regions(semantic == label, self.min_area)
        ]
        masks = np.array([mask for _, mask in found], bool).reshape(-1, *semantic.shape)
        results["gt_masks"] = masks.astype(np.uint8)
        results["gt_bboxes"] = boxes_around(masks)
        results["gt_bboxes_labels"] = np.array([label for label, _ in found], np.int64)
        results["gt_ignore_flags"] = np.zeros(len(found), bool)
        return results


def regions(mask: NDArray[np.bool_], min_area: int) -> list[NDArray[np.bool_]]:
    """The parts (H, W) of a mask whose pixels touch, corners included, and that have `min_area` pixels."""
    count, numbered, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = (number for number in range(1, count) if stats[number, cv2.CC_STAT_AREA] >= min_area)
    return [numbered == number for number in large]
