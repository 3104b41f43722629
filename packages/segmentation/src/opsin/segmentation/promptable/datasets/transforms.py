"""Reading masks, and packing a picture with them for a promptable model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.segmentation.datasets.mask_pairs import read_index_mask
from opsin.segmentation.panoptic.datasets.coco_panoptic import read_ids
from opsin.segmentation.promptable.datasets.masks import sa1b_segments
from opsin.segmentation.promptable.datasets.run_lengths import decode
from opsin.segmentation.promptable.datasets.sample import PromptSample

Results = dict[str, Any]
Masks = NDArray[np.uint8]

HALF = 127  # a grey value above it belongs to the mask
META_KEYS = ("img_path", "ori_shape", "img_shape")


@TRANSFORMS.register_module()
class LoadMasks(BaseTransform):
    """Reads the masks of an entry, of whichever layout, in the size of the original picture.

    Adds `gt_masks` (N, H, W) uint8 without empty ones, and `gt_things` (N,) bool, whether each is a thing. It
    stands before transforms that change picture and masks together, or after those that change the picture
    alone (evaluation compares in the original size).

    Raises:
        UserError: when a file is missing or damaged, or a mask differs in size from the picture.
    """

    def transform(self, results: Results) -> Results:
        """Adds the masks to `results`."""
        size = tuple(results["ori_shape"])
        if "mask_path" in results:
            masks, things = _white(results["mask_path"], size, results["img_path"]), None
        elif "seg_map_path" in results:
            masks, things = _panoptic(results, size)
        else:
            path = results.get("segments_path")
            segments = sa1b_segments(path) if path else results["segments"]
            masks, things = decode(segments, size, source=str(path or results["img_path"])), None
        there: NDArray[np.bool_] = np.asarray(masks.any((1, 2)))
        results["gt_masks"] = masks[there]
        results["gt_things"] = there[there] if things is None else things[there]
        return results


def _white(path: str, size: tuple[int, ...], image: str) -> Masks:
    mask = read_index_mask(path)
    _same_size(mask.shape, size, path, image)
    return (mask > (HALF if mask.max(initial=0) > 1 else 0)).astype(np.uint8)[None]


def _panoptic(results: Results, size: tuple[int, ...]) -> tuple[Masks, NDArray[np.bool_]]:
    ids = read_ids(results["seg_map_path"])
    _same_size(ids.shape, size, results["seg_map_path"], results["img_path"])
    segments = results["segments_info"]
    listed = np.array([segment["id"] for segment in segments], ids.dtype)
    masks = (ids == listed[:, None, None]).astype(np.uint8)
    return masks, np.array([segment["is_instance"] for segment in segments], bool)


def _same_size(mask: tuple[int, ...], image: tuple[int, ...], mask_path: str, image_path: str) -> None:
    if mask != image:
        sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (mask, image))
        raise UserError(f"mask {mask_path} and image {image_path} differ in size: {sizes}")


@TRANSFORMS.register_module()
class PackPrompts(BaseTransform):
    """The packed sample: `inputs` (3, H, W) uint8 and `data_samples`, a `PromptSample`."""

    def transform(self, results: Results) -> Results:
        """Results to the packed sample."""
        sample = PromptSample(metainfo={key: results[key] for key in META_KEYS})
        if "gt_masks" in results:
            sample.gt_masks = torch.from_numpy(np.ascontiguousarray(results["gt_masks"])).bool()
            sample.gt_things = torch.from_numpy(np.ascontiguousarray(results["gt_things"]))
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return {"inputs": torch.from_numpy(pixels), "data_samples": sample}
