"""Arrays of one image to what mmdet's models take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from numpy.typing import NDArray

from opsin.registry import TRANSFORMS

META_KEYS = ("img_id", "img_path", "height", "width", "ori_shape", "img_shape", "scale_factor", "instances")


@TRANSFORMS.register_module()
class PackDetection(BaseTransform):
    """Packs a sample into `inputs` (3, H, W) uint8 RGB and `data_samples`, a `DetDataSample`.

    Objects to be ignored go to `ignored_instances`, the others to `gt_instances`, as `HorizontalBoxes`,
    labels and `BitmapMasks`. Stock mmdet transforms that work on packed samples may follow.

    Args:
        meta_keys: entries to keep beside the picture. `instances`, the annotations in original pixels, is
            what `CocoAP` measures against.
    """

    def __init__(self, meta_keys: tuple[str, ...] = META_KEYS) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """The packed sample."""
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        sample = DetDataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        if "gt_bboxes" in results:
            ignored = results["gt_ignore_flags"].astype(bool)
            sample.gt_instances = _instances(results, ~ignored)
            sample.ignored_instances = _instances(results, ignored)
        return {"inputs": torch.from_numpy(pixels), "data_samples": sample}


def _instances(results: dict[str, Any], chosen: NDArray[np.bool_]) -> InstanceData:
    instances = InstanceData(
        bboxes=HorizontalBoxes(results["gt_bboxes"][chosen], dtype=torch.float32),
        labels=torch.from_numpy(results["gt_bboxes_labels"][chosen]),
    )
    if "gt_masks" in results:
        height, width = results["img"].shape[:2]
        instances.masks = BitmapMasks(results["gt_masks"][chosen], height, width)
    return instances
