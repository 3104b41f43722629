"""Pictures of satellite data for people: reflectances as colours, cloud attention as heat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.restoration.visualization import side_by_side

BRIGHTEST_LAND = 2000  # reflectance; clouds above it are cut off, else land would be all dark


def display_rgb(bands: NDArray[Any]) -> NDArray[np.uint8]:
    """The first three bands as a picture: 8-bit ones as they are, reflectances stretched as published.

    Reflectances (uint16, 10000 is 1) are cut at 2000, then stretched from their own least to their own
    greatest value over 0 to 255; a picture of one value becomes white.

    Args:
        bands: (H, W, C), C of at least 3, uint8 or uint16.

    Returns:
        RGB (H, W, 3).
    """
    rgb = bands[..., :3]
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    stretched = np.minimum(rgb, BRIGHTEST_LAND).astype(np.float64)
    stretched -= stretched.min()
    if not stretched.max():
        return np.full(rgb.shape, 255, np.uint8)
    return (255 * (stretched / stretched.max())).astype(np.uint8)


def heat_map(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values (H, W) from 0 to 1 in the colours of JET: 0 blue, 1 red; RGB (H, W, 3)."""
    heat = cv2.applyColorMap((mask * 255).astype(np.uint8), cv2.COLORMAP_JET)
    return np.ascontiguousarray(heat[..., ::-1])


def draw_place(
    dates: Sequence[NDArray[Any]], masks: NDArray[np.float32], result: NDArray[Any]
) -> NDArray[np.uint8]:
    """Above: the dates and the result; below: each date's cloud attention, and the scale of its colours.

    Args:
        dates: T pictures (H, W, C).
        masks: (T, H, W) from 0 to 1.
        result: (H, W, C').

    Returns:
        RGB (2·H + 4, (T + 1)·(W + 4) - 4, 3).
    """
    height, width = result.shape[:2]
    above = [display_rgb(picture) for picture in (*dates, result)]
    scale = heat_map(np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(max(1, width // 8), axis=1))
    legend = np.full((height, width, 3), 255, np.uint8)
    legend[:, : scale.shape[1]] = scale
    below = [*(heat_map(mask) for mask in masks), legend]
    rows = [side_by_side(row, axis=1) for row in (above, below)]
    return side_by_side(rows, axis=0)
