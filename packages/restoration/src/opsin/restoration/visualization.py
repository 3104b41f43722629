"""Pictures that show what restoration did."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

GAP = 4  # white pixels between before and after


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
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate((enlarged, gap, to_uint8(after)), axis=1)
