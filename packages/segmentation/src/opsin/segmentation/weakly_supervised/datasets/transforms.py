"""The view that a localiser is measured in, and packing pictures with image labels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.segmentation.datasets.mask_pairs import IGNORE, read_index_mask
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample

Results = dict[str, Any]

META_KEYS = ("img_path", "ori_shape", "view")


@TRANSFORMS.register_module()
class CenterView(BaseTransform):
    """Squeezes the picture to a square and cuts out its middle.

    `gt_bboxes` (N, 4) go along, clipped, and so does `gt_seg_map`, which may be of another size than the
    picture.

    Adds `view`, (factor x, factor y, offset): a place p of the view is (p + offset) / factor in the picture.

    Args:
        resize: side of the square, in pixels.
        crop: side of what is cut out.

    Raises:
        UserError: at construction if `crop` is larger than `resize`; for a picture of another size than its
            box was drawn in (`box_shape`).
    """

    def __init__(self, resize: int = 256, crop: int = 224) -> None:
        if not 0 < crop <= resize:
            raise UserError(f"crop={crop} of CenterView", f"give 1 to resize={resize}")
        self.resize, self.crop = resize, crop

    def transform(self, results: Results) -> Results:
        """Changes picture and boxes."""
        height, width = results["img"].shape[:2]
        if tuple(results.get("box_shape", (height, width))) != (height, width):
            given = results["box_shape"]
            raise UserError(
                f"{results['img_path']} is {width}x{height}, its box is for {given[1]}x{given[0]}"
            )
        offset = (self.resize - self.crop) // 2
        inside = slice(offset, offset + self.crop)
        squeezed = cv2.resize(results["img"], (self.resize, self.resize), interpolation=cv2.INTER_LINEAR)
        results["img"] = squeezed[inside, inside]
        factors = self.resize / width, self.resize / height
        results["view"] = (*factors, offset)
        results["img_shape"] = results["img"].shape[:2]
        if "gt_bboxes" in results:
            moved = results["gt_bboxes"] * np.array(factors * 2, np.float32) - offset
            results["gt_bboxes"] = moved.clip(0, self.crop)
        if "gt_seg_map" in results:
            squeezed = cv2.resize(results["gt_seg_map"], (self.resize,) * 2, interpolation=cv2.INTER_NEAREST)
            results["gt_seg_map"] = squeezed[inside, inside]
        return results


@TRANSFORMS.register_module()
class LoadObjectMask(BaseTransform):
    """Adds `gt_seg_map` (H, W) uint8: 1 in any of `mask_paths`, 255 in the rest of `ignore_path`, else 0.

    OpenImages' masks have sizes of their own; the map has that of the first one.

    Raises:
        UserError: for a mask that can't be read.
    """

    def transform(self, results: Results) -> Results:
        """Adds the map."""
        parts = [read_index_mask(path) > 0 for path in results["mask_paths"]]
        inside = np.logical_or.reduce([_resized(part, parts[0].shape) for part in parts])
        ignored = _resized(read_index_mask(results["ignore_path"]) > 0, inside.shape)
        results["gt_seg_map"] = np.where(inside, 1, np.where(ignored, IGNORE, 0)).astype(np.uint8)
        return results


def _resized(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    same = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return same.astype(bool)


@TRANSFORMS.register_module()
class PackWeak(BaseTransform):
    """The packed sample: `inputs` (3, H, W) uint8 and `data_samples`, a `WeakSample`."""

    def transform(self, results: Results) -> Results:
        """Results to the packed sample."""
        sample = WeakSample(metainfo={key: results[key] for key in META_KEYS if key in results})
        if "gt_label" in results:
            sample.gt_label = torch.tensor([results["gt_label"]])
        if "gt_bboxes" in results:
            sample.gt_boxes = torch.from_numpy(results["gt_bboxes"])
        if "gt_labels" in results:
            sample.gt_labels = torch.from_numpy(results["gt_labels"])
        if "seed_maps" in results:
            sample.seed_maps = torch.from_numpy(results["seed_maps"])
        if "gt_seg_map" in results:
            mask = torch.from_numpy(results["gt_seg_map"].astype(np.int64))
            sample.gt_sem_seg = PixelData(data=mask[None])
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return {"inputs": torch.from_numpy(pixels), "data_samples": sample}
