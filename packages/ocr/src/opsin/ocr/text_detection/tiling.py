"""Text in pictures that are searched tile by tile: what several tiles found, told once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData

from opsin.core.engine.tiled import Tile
from opsin.detection.tiling import CONTAINED
from opsin.ocr.text_detection.polygons import Polygon, bounding_box, polygon_shape

NEAR_BORDER = 2
"""Pixels from a tile's border within which an outline may have been cut off."""


def merge_texts(
    found: Sequence[tuple[Tile, InstanceData]], size: Sequence[int], *, iou: float = 0.5
) -> InstanceData:
    """The texts of all tiles in pixels of the whole picture, each once.

    Texts that no tile's border can have cut off come first, each kind surest first; then of two that overlap
    by `iou` the earlier stays, and a text that lies mostly inside an earlier one is a piece of it and goes.
    A text longer than the overlap of the tiles stays in pieces.

    Args:
        found: each tile's place and its `polygons`, `bboxes` (N, 4), `scores` and `labels`.
        size: height and width of the picture.
        iou: overlap from which polygons are one text's.
    """
    whole = InstanceData.cat([_moved(place, texts) for place, texts in found])
    cut = torch.tensor(
        [_cut_off(polygon, place, size) for place, texts in found for polygon in _shifted(place, texts)],
        dtype=torch.bool,
    )
    order = whole.scores.argsort(descending=True, stable=True)
    order = order[cut[order].int().argsort(stable=True)]
    shapes = [polygon_shape(polygon) for polygon in whole.polygons]
    kept: list[int] = []
    for index in order.tolist():
        shape = shapes[index]
        shared = [(shape.intersection(shapes[other]).area, shapes[other].area) for other in kept]
        if not any(
            area > iou * (shape.area + other - area) or area > CONTAINED * shape.area
            for area, other in shared
        ):
            kept.append(index)
    texts = whole[torch.tensor(kept, dtype=torch.long)]
    return texts[texts.scores.argsort(descending=True, stable=True)]


def _shifted(place: Tile, texts: InstanceData) -> list[Polygon]:
    rows, columns = place
    return [polygon + np.array([columns.start, rows.start], np.float32) for polygon in texts.polygons]


def _moved(place: Tile, texts: InstanceData) -> InstanceData:
    """The texts of a tile in pixels of the picture."""
    rows, columns = place
    shift = texts.bboxes.new_tensor([columns.start, rows.start] * 2)
    moved = InstanceData(bboxes=texts.bboxes + shift, scores=texts.scores, labels=texts.labels)
    moved.polygons = _shifted(place, texts)
    return moved


def _cut_off(polygon: Polygon, place: Tile, size: Sequence[int]) -> bool:
    """Whether an outline touches a border of its tile that is no border of the picture."""
    rows, columns = place
    x1, y1, x2, y2 = bounding_box(polygon)
    return bool(
        (columns.start > 0 and x1 - columns.start < NEAR_BORDER)
        or (rows.start > 0 and y1 - rows.start < NEAR_BORDER)
        or (columns.stop < size[1] and columns.stop - x2 < NEAR_BORDER)
        or (rows.stop < size[0] and rows.stop - y2 < NEAR_BORDER)
    )
