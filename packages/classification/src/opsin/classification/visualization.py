"""A classification as a picture: the image, where the model looked, and the likeliest classes as bars."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH = 260
ROW_HEIGHT = 34
MARGIN = 10
INK, PAPER, BAR, TRACK = (40, 40, 40), (255, 255, 255), (66, 115, 179), (228, 232, 238)


def draw_classes(
    image: NDArray[np.uint8], top: Sequence[tuple[str, float]], seen: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Image, what of it the model looked at, and a bar chart, side by side.

    Args:
        image: RGB (H, W, 3).
        top: class name and probability, the likeliest first.
        seen: RGB (h, w, 3), as `draw_heat` gives it; brought to the image's height.

    Returns:
        RGB (H', W', 3); a small image is enlarged by a whole factor so that the chart fits beside it.
    """
    height = len(top) * ROW_HEIGHT + 2 * MARGIN
    factor = -(-height // image.shape[0])
    shown = Image.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    panels = [shown]
    if seen is not None:
        width = max(1, round(shown.height * seen.shape[1] / seen.shape[0]))
        panels.append(Image.fromarray(seen).resize((width, shown.height), Image.Resampling.BICUBIC))
    used = sum(panel.width for panel in panels)
    canvas = Image.new("RGB", (used + PANEL_WIDTH, shown.height), PAPER)
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    left, right = used + MARGIN, canvas.width - MARGIN
    for row, (name, probability) in enumerate(top):
        y = MARGIN + row * ROW_HEIGHT
        draw.text((left, y), _shortened(name), INK, font)
        draw.text((right, y), f"{probability:.1%}", INK, font, anchor="ra")
        draw.rectangle((left, y + 18, right, y + 25), TRACK)
        draw.rectangle((left, y + 18, left + round((right - left) * probability), y + 25), BAR)
    return np.asarray(canvas)


def draw_heat(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image (H, W, 3), grey where `heat` (H, W) in [0, 1] is 0, elsewhere under viridis."""
    grey = image.mean(2, keepdims=True).repeat(3, axis=2)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    share = 0.6 * heat[..., None]
    return np.asarray(grey * (1 - share) + colours * share, np.uint8)


def _shortened(name: str, length: int = 26) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
