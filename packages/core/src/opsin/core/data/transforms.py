"""Transforms of every task: reading the picture, and albumentations with all that belongs to the picture."""

from __future__ import annotations

import os
import random
import warnings
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask PyPI for a newer version

import albumentations
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.data.image import read_image
from opsin.core.data.resize import CropBetween, ShortestEdge
from opsin.core.data.solarize_add import SolarizeAdd
from opsin.core.errors import UserError, unknown
from opsin.registry import TRANSFORMS

Results = dict[str, Any]

_OWN = {"CropBetween": CropBetween, "ShortestEdge": ShortestEdge, "SolarizeAdd": SolarizeAdd}

# Entries with one row an object; they lose the rows of boxes that leave the picture.
_PER_BOX = ("gt_bboxes_labels", "gt_ignore_flags", "gt_keypoints")


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Reads `img_path` into `img`, RGB uint8 (H, W, 3), unless a caller has put `img` there.

    Adds `img_shape` and `ori_shape`, both (H, W), and `scale_factor` (1.0, 1.0).

    Raises:
        UserError: as `read_image` does; the message names the file.
    """

    def transform(self, results: Results) -> Results:
        """Adds the picture to `results`."""
        if "img" not in results:
            results["img"] = read_image(results["img_path"])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        results["scale_factor"] = (1.0, 1.0)
        return results


@TRANSFORMS.register_module()
class Albumentations(BaseTransform):
    """Runs albumentations' transforms on the picture and on all that is drawn on it.

    Carried along where present, N objects and K keypoints each:

    * `img` (H, W, 3) uint8, and `gt_seg_map` (H, W) uint8;
    * `gt_bboxes` (N, 4) float32, x1 y1 x2 y2 in pixels, clipped at the border. A box that leaves the picture
      goes, and with it its rows in `gt_bboxes_labels` (N,), `gt_ignore_flags` (N,), `gt_masks` (N, H, W)
      uint8, 0 and 1, and `gt_keypoints`;
    * `gt_keypoints` (N, K, 2), or (N, K, 3) with a visibility that becomes 0 outside the picture. A flip
      does not exchange left and right keypoints.

    `img_shape` follows; `scale_factor` (width, height) becomes the new size over the original one, so a
    pipeline for evaluation resizes but neither crops nor pads (the data preprocessor pads).

    The randomness of a call comes from numpy's global generator, so that the engine can make it a function of
    seed, epoch and sample. It goes to all transforms as one shared stream: `Compose.set_random_seed` would
    give each the same seed, and two flips at p=0.5 would then always come together.

    Args:
        transforms: albumentations' classes by name, `dict(type='HorizontalFlip', p=0.5)`, and those of
            `opsin.core.data.resize`; `OneOf`, `SomeOf` and `Sequential` hold `transforms` of their own.
        min_area: boxes with less area than this, in pixels, are dropped.
        min_visibility: boxes of which less than this fraction is left are dropped.

    Raises:
        UserError: at construction, for an unknown transform (with the nearest names) or unknown arguments.
    """

    def __init__(
        self, transforms: list[Results], *, min_area: float = 1.0, min_visibility: float = 0.0
    ) -> None:
        self.compose = albumentations.Compose(
            [_build(t) for t in transforms],
            bbox_params=albumentations.BboxParams(
                format="pascal_voc",
                label_fields=["row"],
                min_area=min_area,
                min_visibility=min_visibility,
                clip=True,
                filter_invalid_bboxes=True,
            ),
            keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False),
        )

    def transform(self, results: Results) -> Results:
        """Transforms `results` in place."""
        seed = int(np.random.randint(2**31))
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        out = self.compose(**_to_albumentations(results))
        results["img"] = out["image"]
        if "gt_seg_map" in results:
            results["gt_seg_map"] = out["mask"]
        height, width = results["img"].shape[:2]
        if "gt_masks" in results:
            masks = out.get("masks", np.zeros((0, height, width), np.uint8))
            # `fill_mask` marks what an operation uncovers in `gt_seg_map`; no object is there
            inside = np.asarray(masks, np.uint8).reshape(-1, height, width) == 1
            results["gt_masks"] = inside.astype(np.uint8)
        if "gt_keypoints" in results:
            results["gt_keypoints"] = _keypoints(results["gt_keypoints"], out["keypoints"], (width, height))
        if "gt_bboxes" in results:
            _take_boxes(results, out)
        if "ori_shape" in results:
            old_height, old_width = results["ori_shape"]
            results["scale_factor"] = (width / old_width, height / old_height)
        results["img_shape"] = (height, width)
        return results


def _build(spec: Results) -> Any:
    """One albumentations transform from its config entry."""
    spec = dict(spec)
    name = spec.pop("type")
    known = {n: c for n, c in vars(albumentations).items() if isinstance(c, type) and _is_transform(c)} | _OWN
    if name not in known:
        raise unknown("albumentations transform", name, known)
    if "transforms" in spec:
        spec["transforms"] = [_build(t) for t in spec["transforms"]]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Argument")  # it warns of arguments it does not know
            return known[name](**spec)
    except (TypeError, ValueError, UserWarning) as error:
        raise UserError(f"albumentations transform {name}: {error}") from None


def _is_transform(cls: type) -> bool:
    return issubclass(cls, albumentations.BasicTransform | albumentations.BaseCompose)


def _to_albumentations(results: Results) -> Results:
    """The arguments of `Compose.__call__`. `row` says which object a surviving box is."""
    boxes = results.get("gt_bboxes", np.zeros((0, 4), np.float32))
    given: Results = {"image": results["img"], "bboxes": boxes, "row": np.arange(len(boxes))}
    if "gt_seg_map" in results:
        given["mask"] = results["gt_seg_map"]
    if len(results.get("gt_masks", ())):  # albumentations takes no empty stack
        given["masks"] = results["gt_masks"]
    points = results.get("gt_keypoints", np.zeros((0, 2), np.float32))
    given["keypoints"] = np.asarray(points, np.float32)[..., :2].reshape(-1, 2)
    return given


def _take_boxes(results: Results, out: Results) -> None:
    """Puts the surviving boxes into `results` and keeps their rows of everything else."""
    kept = np.asarray(out["row"]).astype(np.int64).reshape(-1)
    results["gt_bboxes"] = np.asarray(out["bboxes"], np.float32).reshape(-1, 4)
    for key in (*_PER_BOX, "gt_masks"):
        if key in results:
            results[key] = results[key][kept]


def _keypoints(old: NDArray[Any], moved: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """`moved` (N*K, 2) in the shape of `old`; `size` is (width, height)."""
    new = old.astype(np.float32)
    new[..., :2] = np.asarray(moved, np.float32).reshape(*old.shape[:-1], 2)
    if old.shape[-1] == 3:
        inside = ((new[..., :2] >= 0) & (new[..., :2] < size)).all(axis=-1)
        new[..., 2] *= inside
    return new
