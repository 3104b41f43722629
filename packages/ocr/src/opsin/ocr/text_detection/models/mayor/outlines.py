"""From masks in boxes to polygons in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from opsin.ocr.text_detection.polygons import Polygon, mask_to_polygon, min_area_rectangle

Array = NDArray[np.floating]


@dataclass(frozen=True)
class PastedMask:
    """A mask where it lies in the picture: `pixels` (h, w) bool with the corner at column `x`, row `y`."""

    x: int
    y: int
    pixels: NDArray[np.bool_]

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.pixels.sum())

    def iou(self, other: PastedMask) -> float:
        """Intersection over union of two masks, 0 where both are empty."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.pixels.shape[1], other.x + other.pixels.shape[1])
        bottom = min(self.y + self.pixels.shape[0], other.y + other.pixels.shape[0])
        if right <= left or bottom <= top:
            return 0.0
        own, others = (
            mask.pixels[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x]
            for mask in (self, other)
        )
        shared = int((own & others).sum())
        return shared / max(1, self.area + other.area - shared)


def outlines(
    masks: Array,
    boxes: Array,
    size: Sequence[int],
    *,
    threshold: float = 0.5,
    nms_iou: float = 0.5,
    rectangles: bool = False,
) -> tuple[list[int], list[Polygon]]:
    """The instances that have an outline of their own, and their polygons.

    Of masks that overlap by more than `nms_iou` the first stays; masks of fewer than ten pixels go.

    Args:
        masks: probabilities (R, 28, 28), surest first.
        boxes: (R, 4), x1 y1 x2 y2 in pixels of the picture.
        size: height and width of the picture.
        threshold: probability from which a pixel is inside.
        nms_iou: overlap from which masks are one instance's.
        rectangles: give the smallest rectangle around each outline instead, for data that are so annotated.

    Returns:
        Indices into `masks`, and a polygon (N, 2) in pixels of the picture for each.
    """
    kept: list[int] = []
    polygons: list[Polygon] = []
    placed: list[PastedMask] = []
    for index, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        pasted = paste(mask, box, size, threshold)
        if any(pasted.iou(other) > nms_iou for other in placed):
            continue
        polygon = mask_to_polygon(pasted.pixels)
        if polygon is None:
            continue
        polygon = polygon + np.array([pasted.x, pasted.y], np.float32)
        kept.append(index)
        placed.append(pasted)
        polygons.append(min_area_rectangle(polygon) if rectangles else polygon)
    return kept, polygons


def paste(mask: Array, box: Array, size: Sequence[int], threshold: float = 0.5) -> PastedMask:
    """A mask stretched over its box, cut off at the border of the picture.

    The centres of the mask's cells lie at (i + 0.5) / 28 of the box (align_corners is false); between them
    it is bilinear, and beyond the outermost it stays what it is there. Only the box's pixels are computed,
    whatever the size of the picture.

    Args:
        mask: probabilities (28, 28).
        box: x1, y1, x2, y2 in pixels.
        size: height and width of the picture.
        threshold: probability from which a pixel is inside.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    columns, rows = _pixels(x1, x2, size[1]), _pixels(y1, y2, size[0])
    stretched = _stretch(mask, y1, y2, rows)
    stretched = _stretch(stretched.T, x1, x2, columns).T
    return PastedMask(columns.start, rows.start, stretched >= threshold)


def _pixels(start: float, end: float, limit: int) -> range:
    """The pixels of an axis of `limit` pixels whose centres lie between `start` and `end`."""
    first = min(max(0, int(np.ceil(start - 0.5))), limit)
    return range(first, max(first, min(limit, int(np.floor(end - 0.5)) + 1)))


def _stretch(values: Array, start: float, end: float, pixels: range) -> Array:
    """Linear interpolation along the first axis, whose cells fill `start` to `end`, at pixels' centres."""
    cells = len(values)
    place = (np.asarray(pixels) + 0.5 - start) / max(end - start, 1e-6) * cells - 0.5
    place = place.clip(0, cells - 1)
    below = np.minimum(place.astype(int), cells - 2)
    share = (place - below)[:, None]
    stretched: Array = values[below] * (1 - share) + values[below + 1] * share
    return stretched
