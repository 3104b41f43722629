"""A classification as a picture: the image, and beside it the likeliest classes as bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH = 260
ROW_HEIGHT = 34
MARGIN = 10
INK, PAPER, BAR, TRACK = (40, 40, 40), (255, 255, 255), (66, 115, 179), (228, 232, 238)


def draw_classes(image: NDArray[np.uint8], top: Sequence[tuple[str, float]]) -> NDArray[np.uint8]:
    """Image and bar chart side by side.

    Args:
        image: RGB (H, W, 3).
        top: class name and probability, the likeliest first.

    Returns:
        RGB (H', W' + 260, 3); a small image is enlarged by a whole factor so that the chart fits beside it.
    """
    height = len(top) * ROW_HEIGHT + 2 * MARGIN
    factor = -(-height // image.shape[0])
    shown = Image.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    canvas = Image.new("RGB", (shown.width + PANEL_WIDTH, shown.height), PAPER)
    canvas.paste(shown, (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    left, right = shown.width + MARGIN, canvas.width - MARGIN
    for row, (name, probability) in enumerate(top):
        y = MARGIN + row * ROW_HEIGHT
        draw.text((left, y), _shortened(name), INK, font)
        draw.text((right, y), f"{probability:.1%}", INK, font, anchor="ra")
        draw.rectangle((left, y + 18, right, y + 25), TRACK)
        draw.rectangle((left, y + 18, left + round((right - left) * probability), y + 25), BAR)
    return np.asarray(canvas)


def _shortened(name: str, length: int = 26) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
