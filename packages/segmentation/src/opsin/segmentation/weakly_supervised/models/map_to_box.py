"""From a foreground map to a box, and how boxes are compared, as weakly supervised localisation does both."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]
Box = NDArray[np.int64]

EPSILON = 1e-5
EIGHT_NEIGHBOURS = 8


def normalized(heat: Map) -> Map:
    """A map (h, w) with its least value at 0 and its greatest at almost 1; an even map is 0."""
    least, greatest = heat.min(), heat.max()
    stretched: Map = (heat - least) / (greatest - least + EPSILON)
    return stretched


def enlarged(heat: Map, size: tuple[int, int]) -> Map:
    """A map (h, w) between whose cells is read, (H, W) of `size`."""
    resized: Map = cv2.resize(np.ascontiguousarray(heat), size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized


def largest_box(heat: Map, threshold: float) -> Box:
    """The box x0, y0, x1, y1 (x1 and y1 exclusive) of the largest part of a map (H, W) above `threshold`.

    Parts hang together by corners too. Where nothing is above, it is the whole picture.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(
        (heat > threshold).astype(np.uint8), connectivity=EIGHT_NEIGHBOURS
    )
    parts = stats[1:]  # the first is what lies below
    if not len(parts):
        return np.array([0, 0, heat.shape[1], heat.shape[0]])
    left, top, width, height, _ = parts[parts[:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height])


def box_iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    """IoU of two boxes x0, y0, x1, y1 whose sides count one pixel more than their difference."""
    left_top, right_bottom = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    overlap = np.clip(right_bottom - left_top + 1, 0, None).prod()
    areas = [(box[2:] - box[:2] + 1).prod() for box in (first, second)]
    return float(overlap / (sum(areas) - overlap))
