"""Pictures of masks that may overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.segmentation.visualization import borders, distinct_colours

Rgb = NDArray[np.uint8]

OPACITY = 0.5


def draw_masks(image: Rgb, masks: NDArray[Any], opacity: float = OPACITY) -> Rgb:
    """The picture (H, W, 3) with each mask of (N, H, W) in a colour of its own, with a white border.

    Later masks lie over earlier ones.
    """
    drawn = image.astype(np.float32)
    for mask, colour in zip(masks, distinct_colours(len(masks)), strict=True):
        drawn[mask] = image[mask] * (1 - opacity) + colour.astype(np.float32) * opacity
        drawn[borders(mask)] = 255
    return drawn.round().astype(np.uint8)
