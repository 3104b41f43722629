"""Overlap of axis-aligned boxes: intersection over union, or over the first box's area ("foreground").

Boxes are (N, 4) and (M, 4) as x1, y1, x2, y2; the result is (N, M), or (N,) when aligned. Composed of
differentiable PyTorch calls, so it is its own reference and works under `torch.compile` and `torch.export` as
it is. Two boxes of no area give NaN (0 / 0), as mmcv's op does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bbox_overlaps(
    boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False, offset: int = 0
) -> Tensor:
    """Overlaps of each box of the first set with each of the second (with its partner, if aligned).

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4); M = N if aligned.
        mode: `iou`, or `iof` to divide by the area of the box of `boxes1`.
        aligned: pair the boxes one to one.
        offset: 0, or 1 for integer pixel boxes; added to every width and height.

    Returns:
        (N, M), or (N,) if aligned.

    Raises:
        ValueError: if `mode` is neither `iou` nor `iof`.
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"bbox_overlaps: mode {mode!r} is neither 'iou' nor 'iof'")
    first, second = (boxes1, boxes2) if aligned else (boxes1[:, None], boxes2[None])
    size = (
        torch.minimum(first[..., 2:], second[..., 2:])
        - torch.maximum(first[..., :2], second[..., :2])
        + offset
    )
    inter = size.clamp(min=0).prod(-1)
    base = _area(first, offset)
    return inter / (base + _area(second, offset) - inter if mode == "iou" else base)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)
