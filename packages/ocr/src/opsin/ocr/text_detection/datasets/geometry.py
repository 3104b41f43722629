"""Turning, resizing and cropping pictures of text together with its polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.data.transforms import Albumentations
from opsin.ocr.text_detection.datasets.annotated_text import boxes_around, keep_texts
from opsin.ocr.text_detection.polygons import clip_polygon
from opsin.registry import TRANSFORMS

Results = dict[str, Any]

WHOLE = 0.9
"""A text of which less than this share is left in the picture becomes don't care."""


@TRANSFORMS.register_module()
class PolygonAlbumentations(Albumentations):
    """`Albumentations` for pictures with `gt_polygons`, whose corners move as keypoints do.

    Boxes are drawn anew around the moved polygons. Polygons are clipped at the border; a text of which less
    than nine tenths is left becomes don't care, one of which nothing is left goes. Arguments as in
    `opsin.Albumentations`; transforms that do not move keypoints (elastic ones, say) are of no use here.
    """

    def transform(self, results: Results) -> Results:
        """Transforms `results` in place."""
        if "gt_polygons" not in results:
            return super().transform(results)
        polygons = results["gt_polygons"]
        results["gt_keypoints"] = np.concatenate([np.zeros((0, 2), np.float32), *polygons])[None]
        del results["gt_bboxes"]  # albumentations would drop rows of its own accord
        super().transform(results)
        corners = results.pop("gt_keypoints")[0]
        ends = np.cumsum([len(polygon) for polygon in polygons])
        results["gt_polygons"] = np.split(corners, ends)[:-1]
        return _clip_texts(results)


@TRANSFORMS.register_module()
class CropText(BaseTransform):
    """Crops a window that cuts no text, or, where there is none, one that cuts as few as possible.

    Windows are drawn around texts at random; the first that holds a whole text and cuts none is taken. If no
    draw does, the texts that the best one cuts become don't care. A picture without text is cropped anywhere.
    Smaller pictures stay as they are (the data preprocessor pads). Randomness comes from numpy's global
    generator.

    Args:
        size: side of the window in pixels.
        draws: windows to draw.
    """

    def __init__(self, size: int = 640, *, draws: int = 50) -> None:
        self.size = size
        self.draws = draws

    def transform(self, results: Results) -> Results:
        """Crops `results` in place."""
        height, width = results["img"].shape[:2]
        span = np.minimum((self.size, self.size), (width, height))
        corners = self._draw(results["gt_bboxes"], np.array((width, height)), span)
        x, y = corners[_fewest_cut(corners, span, results["gt_bboxes"])]
        results["img"] = results["img"][y : y + span[1], x : x + span[0]]
        results["img_shape"] = results["img"].shape[:2]
        shift = np.array((x, y), np.float32)
        results["gt_polygons"] = [polygon - shift for polygon in results["gt_polygons"]]
        return _clip_texts(results)

    def _draw(
        self, boxes: NDArray[np.float32], picture: NDArray[np.int64], span: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Top left corners (draws, 2) of windows of `span`, each over the centre of some text."""
        room = picture - span
        if not len(boxes):
            return np.random.randint(0, room + 1, (self.draws, 2))
        chosen = boxes[np.random.randint(len(boxes), size=self.draws)]
        centres = (chosen[:, :2] + chosen[:, 2:]) / 2
        corners = centres - np.random.uniform(0, span, (self.draws, 2))
        clipped: NDArray[np.int64] = np.clip(corners, 0, room).astype(np.int64)
        return clipped


def _fewest_cut(corners: NDArray[np.int64], span: NDArray[np.int64], boxes: NDArray[np.float32]) -> int:
    """Which window to take; `corners` (W, 2) their top left corners, `boxes` (N, 4)."""
    first, last = corners[:, None], (corners + span)[:, None]
    whole = np.all((boxes[:, :2] >= first) & (boxes[:, 2:] <= last), axis=2)
    touched = np.all((boxes[:, 2:] > first) & (boxes[:, :2] < last), axis=2)
    cut = np.sum(touched & ~whole, axis=1)
    empty = ~np.any(whole, axis=1)
    return int(np.lexsort((cut, empty))[0])


def _clip_texts(results: Results) -> Results:
    """Clips polygons at the picture's border, draws the boxes anew, and marks texts that are cut."""
    height, width = results["img"].shape[:2]
    clipped = [clip_polygon(polygon, (0, 0, width, height)) for polygon in results["gt_polygons"]]
    left = np.array([share for _, share in clipped])
    results["gt_ignore_flags"] = results["gt_ignore_flags"] | (left < WHOLE)
    results["gt_polygons"] = [p if p is not None else np.zeros((1, 2), np.float32) for p, _ in clipped]
    results["gt_bboxes"] = boxes_around(results["gt_polygons"])
    keep_texts(results, left > 0)
    return results
