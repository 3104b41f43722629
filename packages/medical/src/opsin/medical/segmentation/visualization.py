"""Pictures of what was found: classes tinted over a picture, or over a volume's three planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.label_overlay import Rgb, distinct_colours, overlay

GAP = 4  # white pixels between planes
LEAST_HEIGHT = 256  # of the picture of three planes


def tinted(image: Rgb, labels: NDArray[Any]) -> Rgb:
    """A picture (H, W, 3) with every class (H, W) but the background in a colour of its own."""
    foreground = labels.astype(np.int64) - 1
    foreground[labels == 0] = 255  # no class: left as it is
    return overlay(image, foreground, distinct_colours(int(labels.max(initial=0)) or 1).tolist(), 0.4)


def three_planes(values: NDArray[Any], labels: NDArray[Any], spacing: Sequence[float]) -> Rgb:
    """Axial, coronal and sagittal plane through the middle of what was found, in true proportions.

    Args:
        values: (X, Y, Z) in RAS+ orientation.
        labels: classes of the same shape.
        spacing: millimetres between voxels along X, Y and Z.

    Returns:
        RGB uint8 (H, W, 3); front or top is above, the patient's right (in the sagittal plane the front) is
        at the right.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    grey = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1) * 255
    found = np.argwhere(labels)
    centre = (found.mean(0) if len(found) else np.array(values.shape) / 2).astype(int)
    planes = []
    for axis, (across, up) in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
        grey_plane, label_plane = (np.take(volume, centre[axis], axis).T[::-1] for volume in (grey, labels))
        size = [round(grey_plane.shape[1] * spacing[across]), round(grey_plane.shape[0] * spacing[up])]
        planes.append(_drawn(grey_plane, label_plane, size))
    height = max(LEAST_HEIGHT, *(len(plane) for plane in planes))
    padded = [_centred(plane, height) for plane in planes]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([padded[0], gap, padded[1], gap, padded[2]], axis=1)


def _drawn(grey: NDArray[Any], labels: NDArray[Any], size: Sequence[int]) -> Rgb:
    """A plane at `size` (width, height) in pixels of a millimetre, twice as large while it is small."""
    factor = 2 if max(size) < LEAST_HEIGHT else 1
    target = [max(1, side * factor) for side in size]
    picture = cv2.resize(grey.astype(np.float32), target, interpolation=cv2.INTER_LINEAR)
    classes = cv2.resize(labels.astype(np.uint8), target, interpolation=cv2.INTER_NEAREST)
    return tinted(np.repeat(picture.round().astype(np.uint8)[..., None], 3, axis=2), classes)


def _centred(plane: Rgb, height: int) -> Rgb:
    above = (height - len(plane)) // 2
    return np.pad(plane, ((above, height - len(plane) - above), (0, 0), (0, 0)))
