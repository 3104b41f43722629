"""Label maps drawn over pictures: colours far apart, tints, borders."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]

GOLDEN_RATIO = 0.618034  # steps of this length never fall close to an earlier hue


def distinct_colours(count: int) -> Rgb:
    """(count, 3) RGB colours, neighbours in the list far apart in hue."""
    colours = [
        colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1, (0.85, 0.55)[i // 8 % 2], (0.95, 0.7)[i // 4 % 2])
        for i in range(count)
    ]
    return (np.array(colours).reshape(-1, 3) * 255).round().astype(np.uint8)


def overlay(image: Rgb, labels: NDArray[Any], palette: Sequence[Sequence[int]], opacity: float = 0.55) -> Rgb:
    """The photograph (H, W, 3) tinted in the colour of each pixel's class, class borders in white.

    Args:
        image: RGB uint8.
        labels: (H, W) class indices; values without a colour (255, void) are left untinted.
        palette: one RGB colour a class.
        opacity: of the tint, in [0, 1].
    """
    colours = np.asarray([*palette, (0, 0, 0)], np.float32)  # the last is not seen; a palette may be empty
    has_class = labels < len(palette)
    tint = colours[np.where(has_class, labels.astype(np.intp), -1)]
    mixed = np.where(has_class[..., None], image * (1 - opacity) + tint * opacity, image)
    mixed[borders(labels)] = 255
    return mixed.round().astype(np.uint8)


def borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W): pixels whose right or lower neighbour has another label."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    return found
