"""How near two boxes are, and the curves and means that benchmarks make of it.

Boxes are x, y, w, h in pixels, (N, 4); a frame that does not count has NaN. Curves are over fixed thresholds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

OVERLAPS = np.linspace(0, 1, 21)
"""Thresholds of the success curve, in steps of 0.05."""

PRECISION_AT = 20.0
"""Pixels within which a centre counts for precision."""

NORMALISED_AT = 0.2
"""Sides of the truth within which a centre counts for normalised precision."""


def iou(boxes: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Intersection over union of pairs of boxes (N, 4), (N,); NaN where either is, 0 for two without area.

    Benchmarks that count both end pixels of a box (LaSOT, OTB) add 1 where they subtract, and get the same.
    """
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = (high - low).clip(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), np.where(np.isnan(union), np.nan, 0.0))


def centre_distance(boxes: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Distance of the centres in pixels, (N,)."""
    return np.asarray(np.linalg.norm(_centres(boxes) - _centres(truth), axis=1), np.float64)


def normalised_distance(boxes: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Distance of the centres, each axis over the truth's side, (N,); not finite without sides."""
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (_centres(boxes) - _centres(truth)) / truth[:, 2:]
    return np.asarray(np.linalg.norm(apart, axis=1), np.float64)


def _centres(boxes: NDArray[Any]) -> Array:
    return np.asarray(boxes[:, :2] + 0.5 * (boxes[:, 2:] - 1), np.float64)


def success_curve(overlaps: Array) -> Array:
    """Share of frames with more overlap than each of `OVERLAPS`, (21,); perfect boxes fail the last."""
    return np.asarray((overlaps[:, None] > OVERLAPS).mean(0), np.float64)
