"""The annotated objects of one image as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval import mask as run_lengths
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS

Results = dict[str, Any]


class CountsClasses:
    """A dataset that says which classes a sample has, as mmdet's samplers and wrappers ask.

    `ClassAwareSampler` then draws rare classes as often as frequent ones.
    """

    def get_cat_ids(self, index: int) -> list[int]:
        """The labels of the objects of sample `index`, those to be ignored left out."""
        instances = self.get_data_info(index)["instances"]  # type: ignore[attr-defined]  # the dataset's
        return [int(o["bbox_label"]) for o in instances if not o["ignore_flag"]]


@TRANSFORMS.register_module()
class LoadObjects(BaseTransform):
    """Turns `instances` into `gt_bboxes` (N, 4) float32, `gt_bboxes_labels` (N,) and `gt_ignore_flags` (N,).

    Args:
        with_masks: also `gt_masks` (N, H, W) uint8, drawn from each object's polygons or run lengths; an
            object without any gets its box.

    Raises:
        UserError: when the image does not have the annotated size, or a mask cannot be drawn.
    """

    def __init__(self, *, with_masks: bool = False) -> None:
        self.with_masks = with_masks

    def transform(self, results: Results) -> Results:
        """Adds the arrays to `results`."""
        objects = results["instances"]
        size = (results["height"], results["width"])
        if "img" in results and results["img"].shape[:2] != size:
            height, width = results["img"].shape[:2]
            raise UserError(
                f"image {results['img_path']} is {width}x{height}, annotated as {size[1]}x{size[0]}"
            )
        results["gt_bboxes"] = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
        results["gt_bboxes_labels"] = np.array([o["bbox_label"] for o in objects], np.int64)
        results["gt_ignore_flags"] = np.array([o["ignore_flag"] for o in objects], bool)
        if self.with_masks:
            masks = [draw_mask(o, size, results["img_path"]) for o in objects]
            results["gt_masks"] = np.stack(masks) if masks else np.zeros((0, *size), np.uint8)
        return results


def draw_mask(instance: Results, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """The mask (H, W) of 0 and 1 of one annotated object; `size` is (H, W), `where` the image in errors."""
    mask: NDArray[np.uint8] = run_lengths.decode(encode_mask(instance, size, where))
    return mask


def encode_mask(instance: Results, size: tuple[int, int], where: str) -> dict[str, Any]:
    """COCO's compressed run lengths of an annotated object's `mask`, or of its box if it has none."""
    mask = instance.get("mask")
    if not mask:
        x1, y1, x2, y2 = instance["bbox"]
        mask = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    height, width = size
    try:
        if isinstance(mask, dict) and list(mask["size"]) != [height, width]:
            raise UserError(
                f"a mask of {where} is for an image of size {mask['size']}, not {[height, width]}"
            )
        encoded: Any = mask
        if isinstance(mask, list):
            _check_polygons(mask, where)
            encoded = run_lengths.merge(run_lengths.frPyObjects(mask, height, width))
        elif isinstance(mask["counts"], list):
            encoded = run_lengths.frPyObjects(mask, height, width)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"a mask of {where} is neither polygons nor run lengths ({error})") from None
    found: dict[str, Any] = encoded
    return found


def _check_polygons(polygons: list[Any], where: str) -> None:
    """Refuses what is no polygon; COCO's own code takes four numbers for a box."""
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(
                f"a mask of {where} has a polygon of {len(polygon)} numbers",
                "a polygon has x and y of three points or more",
            )
        if not np.isfinite(polygon).all():
            raise UserError(f"a mask of {where} has a polygon with a number that is not finite")
