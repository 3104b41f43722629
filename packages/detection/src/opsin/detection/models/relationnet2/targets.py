"""Training targets of key points: a Gaussian around the nearest point of every level, and its offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MIN_OVERLAP = 0.7
"""Boxes whose corners move by the Gaussian's radius keep at least this IoU."""


class PointTargets(NamedTuple):
    """`offsets` (P, 2) in strides, `scores` (P, classes) in 0 … 1, `positive` (P,) bool."""

    offsets: Tensor
    scores: Tensor
    positive: Tensor


def gaussian_radius(sizes: Tensor, min_overlap: float = MIN_OVERLAP) -> Tensor:
    """How far both corners of a box may move so that it keeps the IoU `min_overlap`.

    The smallest solution for corners that move the same way, both inwards and both outwards; with the right
    roots, which CornerNet's own code has not, and not rounded.

    Args:
        sizes: (…, 2), width and height in pixels.
        min_overlap: IoU in 0 … 1.

    Returns:
        (…), pixels.
    """
    total, area = sizes.sum(-1), sizes.prod(-1)
    shifted = _root(total, area * (1 - min_overlap) / (1 + min_overlap), 1.0)
    shrunk = _root(2 * total, area * (1 - min_overlap), 4.0)
    factor = 4 * min_overlap
    b = -2 * min_overlap * total
    grown = (b + (b**2 - 4 * factor * area * (min_overlap - 1)).sqrt()) / (2 * factor)
    return torch.stack((shifted, shrunk, grown)).amin(0)


def _root(b: Tensor, c: Tensor, a: float) -> Tensor:
    """The smaller root of a r^2 - b r + c = 0."""
    return (b - (b**2 - 4 * a * c).sqrt()) / (2 * a)


def point_targets(
    levels: Sequence[Tensor],
    strides: Sequence[int],
    key_points: Tensor,
    boxes: Tensor,
    labels: Tensor,
    num_classes: int,
    min_overlap: float = MIN_OVERLAP,
) -> PointTargets:
    """Targets of one kind of key point in one image.

    On every level the point nearest to each object's key point is positive, and the score falls from 1 there
    as a Gaussian whose width follows from the box. Where several objects reach, the one with the largest
    score gives class and offset.

    Args:
        levels: the points (P_l, 2) of each level, x and y in pixels.
        strides: pixels between a level's points.
        key_points: (G, 2), a corner or the centre of each object.
        boxes: (G, 4), x1 y1 x2 y2.
        labels: (G,).
        num_classes: classes.
        min_overlap: see `gaussian_radius`.
    """
    if not len(boxes):
        counts = sum(map(len, levels))
        return PointTargets(
            boxes.new_zeros(counts, 2),
            boxes.new_zeros(counts, num_classes),
            torch.zeros(counts, dtype=torch.bool, device=boxes.device),
        )
    variance = ((2 * gaussian_radius(boxes[:, 2:] - boxes[:, :2], min_overlap) + 1) / 6) ** 2
    found = [
        _level_targets(points, stride, key_points, variance, labels, num_classes)
        for points, stride in zip(levels, strides, strict=True)
    ]
    return PointTargets(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _level_targets(
    points: Tensor, stride: int, key_points: Tensor, variance: Tensor, labels: Tensor, num_classes: int
) -> PointTargets:
    nearest = (points[:, None] - key_points[None]).square().sum(-1).argmin(0)
    distance = (points[:, None] - points[nearest][None]).square().sum(-1)  # (P, G)
    score, winner = torch.exp(-0.5 * distance / variance).max(1)
    positive = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    positive[nearest] = True
    offsets = (key_points[winner] - points) / stride * positive[:, None]
    scores = points.new_zeros(len(points), num_classes)
    scores[torch.arange(len(points), device=points.device), labels[winner]] = score
    return PointTargets(offsets, scores, positive)
