"""Boxes of tensors: forms, overlap, and the losses that trackers learn boxes with."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_centre(corners: Tensor) -> Tensor:
    """x1, y1, x2, y2 to cx, cy, w, h; (…, 4)."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def to_corners(centred: Tensor) -> Tensor:
    """cx, cy, w, h to x1, y1, x2, y2; (…, 4)."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def ciou(boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Complete IoU (arXiv 1911.08287) and plain IoU of pairs of boxes.

    CIoU is IoU - squared distance of centres / squared diagonal of the enclosing box - alpha * v, clamped to
    [-1, 1], where v = 4 / pi² * (difference of the angles of the aspect ratios)² and
    alpha = v / (1 - IoU + v) only where IoU > 0.5, without gradient.

    The published function divides unguarded: equal boxes give 0 / 0 where rounding makes their IoU exactly 1,
    and boxes without area NaN. Here such a quotient is 0 and angles are those of `atan2`, which equal the
    others wherever both are defined.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        truth: what they should be, likewise.

    Returns:
        CIoU and IoU, (N,) each.
    """
    size, truth_size = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    shared = (torch.minimum(boxes[:, 2:], truth[:, 2:]) - torch.maximum(boxes[:, :2], truth[:, :2])).clamp(
        min=0
    )
    intersection = shared.prod(1)
    iou = _ratio(intersection, size.prod(1) + truth_size.prod(1) - intersection)
    around = torch.maximum(boxes[:, 2:], truth[:, 2:]) - torch.minimum(boxes[:, :2], truth[:, :2])
    apart = (boxes[:, :2] + boxes[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2
    distance = _ratio(apart.square().sum(1), around.square().sum(1))
    v = 4 / math.pi**2 * (_angle(truth_size) - _angle(size)).square()
    with torch.no_grad():
        alpha = torch.where(iou > 0.5, _ratio(v, 1 - iou + v), 0.0)
    return (iou - distance - alpha * v).clamp(-1, 1), iou


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    some = b > 0
    return torch.where(some, a / torch.where(some, b, 1.0), 0.0)


def _angle(size: Tensor) -> Tensor:
    """atan(w / h) of sizes (N, 2); 0 without any gradient for a point."""
    point = (size == 0).all(1)
    width, height = torch.where(point[:, None], torch.ones_like(size), size).unbind(1)
    return torch.where(point, 0.0, torch.atan2(width, height))
