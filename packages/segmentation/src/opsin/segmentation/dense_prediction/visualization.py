"""Pictures of depth and normals: depth in colours with a scale in metres beside it, normals as colours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opsin.segmentation.dense_prediction.datasets.nyuv2 import encode_normals

Rgb = NDArray[np.uint8]

BAR = 14  # pixels of the scale's width
TICKS = 5
LOWEST_SCALE = 90  # pixels that the scale's numbers need


def coloured(depth: NDArray[Any], near: float, far: float) -> Rgb:
    """(H, W) metres to colours (H, W, 3), red for near and blue for far; black where there is no depth."""
    share = ((depth - near) / max(far - near, 1e-6)).clip(0, 1)
    table = cv2.applyColorMap((255 - share * 255).round().astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    painted: Rgb = np.where((depth > 0)[..., None], table, 0).astype(np.uint8)
    return painted


def draw_depth(image: Rgb, depth: NDArray[Any]) -> Rgb:
    """Picture, depth and a scale in metres, side by side.

    Args:
        image: RGB uint8 (H, W, 3).
        depth: (H, W) metres, 0 where unknown.
    """
    known = depth[depth > 0]
    near, far = (float(v) for v in np.percentile(known, (1, 99))) if known.size else (0.0, 1.0)
    pair = np.concatenate([image, coloured(depth, near, far)], axis=1)
    height = max(len(pair), LOWEST_SCALE)
    padded = np.pad(pair, ((0, height - len(pair)), (0, 0), (0, 0)), constant_values=255)
    return np.concatenate([padded, _scale(near, far, height)], axis=1)


def _scale(near: float, far: float, height: int) -> Rgb:
    """(height, W, 3): the colours from near, above, to far, below, with numbers."""
    font = ImageFont.load_default(11)
    lines = [f"{near + (far - near) * tick / (TICKS - 1):.2f} m" for tick in range(TICKS)]
    width = BAR + 14 + int(max(font.getlength(line) for line in lines))
    column = Image.new("RGB", (width, height), "white")
    ramp = np.linspace(near, far, height)[:, None].repeat(BAR, 1)
    # A depth of 0 is unknown, and the scale may begin there.
    column.paste(Image.fromarray(coloured(ramp + 1e-6, near + 1e-6, far + 1e-6)), (4, 0))
    draw = ImageDraw.Draw(column)
    for tick, line in enumerate(lines):
        draw.text((BAR + 8, (height - 13) * tick // (TICKS - 1)), line, fill="black", font=font)
    return np.asarray(column)


def draw_normals(image: Rgb, normals: NDArray[Any]) -> Rgb:
    """Picture and normals side by side.

    Args:
        image: RGB uint8 (H, W, 3).
        normals: (H, W, 3) unit vectors: red to the right, green up, blue towards the camera.
    """
    return np.concatenate([image, encode_normals(normals)], axis=1)
