"""Pictures that show what restoration did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

GAP = 4  # white pixels between pictures


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture of uint8 or uint16 as uint8."""
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def before_after(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.uint8]:
    """The input, enlarged by OpenCV's bicubic to the size of the result, beside the result.

    Args:
        before: input (h, w, 3), uint8 or uint16.
        after: result (H, W, 3), uint8 or uint16.

    Returns:
        RGB uint8 (H, 2·W + 4, 3).
    """
    height, width = after.shape[:2]
    enlarged = cv2.resize(to_uint8(before), (width, height), interpolation=cv2.INTER_CUBIC)
    return side_by_side((np.asarray(enlarged, np.uint8), to_uint8(after)))


def side_by_side(pictures: Sequence[NDArray[np.uint8]], axis: int = 1) -> NDArray[np.uint8]:
    """RGB pictures with white pixels between, beside (`axis` 1) or below (0) one another.

    Args:
        pictures: (H, W, 3), of one height or one width.
        axis: along which.
    """
    parts: list[NDArray[np.uint8]] = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[axis] = GAP
        parts += [picture, np.full(shape, 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=axis)
