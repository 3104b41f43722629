"""Words as they are painted, printed and put on signs: strips of letters, bent into a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opsin.ocr.text_detection.baselines import Baseline, outline

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmb10",
    "cmss10",
)
"""Fonts in matplotlib's wheel."""

MARGIN = 1.0
"""Pixels between the ink of a word and its polygon."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Strip:
    """A line of text, flat.

    Args:
        ink: how much of each pixel is covered (height, length), float32 in 0 … 1.
        words: the words.
        spans: where each one's ink begins and ends along the strip.
        edges: how far above and below the strip's middle the ink of the line reaches.
    """

    ink: NDArray[np.float32]
    words: tuple[str, ...]
    spans: tuple[tuple[float, float], ...]
    edges: tuple[float, float]

    @property
    def length(self) -> float:
        """In pixels."""
        return float(self.ink.shape[1])

    @property
    def height(self) -> float:
        """Of the ink, in pixels."""
        return self.edges[1] - self.edges[0]


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def set_line(words: tuple[str, ...], font: str, size: int) -> Strip:
    """The words side by side; `size` is the font's, in pixels."""
    face = _font(font, size)
    text = " ".join(words)
    width, height = int(np.ceil(face.getlength(text))) + size, 2 * size
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((size / 2, size), text, fill=255, font=face, anchor="lm")
    ink: NDArray[np.float32] = np.asarray(canvas, np.float32) / np.float32(255)
    spans, begin = [], size / 2
    for word in words:
        end = begin + face.getlength(word)
        columns = np.flatnonzero(ink[:, int(begin) : int(np.ceil(end))].max(axis=0)) + int(begin)
        spans.append((float(columns[0]) - MARGIN, float(columns[-1]) + 1 + MARGIN))
        begin = end + face.getlength(" ")
    rows = np.flatnonzero(ink.max(axis=1))
    edges = (float(rows[0]) - size - MARGIN, float(rows[-1]) + 1 - size + MARGIN)
    return Strip(ink, words, tuple(spans), edges)


def bend(
    strip: Strip, baseline: Baseline, size: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The strip's ink along a curve, and the column and row where this piece of the picture begins.

    Args:
        strip: the text.
        baseline: the curve.
        size: height and width of the picture; ink outside is cut off.
    """
    half = strip.ink.shape[0] / 2
    reach = outline(baseline, (0, strip.length), (strip.edges[0] - 2, strip.edges[1] + 2), 33)
    low = np.clip(np.floor(reach.min(axis=0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(reach.max(axis=0)), 0, size[::-1]).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
    along, down = baseline.locate(x, y)
    columns, rows = (along - 0.5).astype(np.float32), (down + half - 0.5).astype(np.float32)
    return cv2.remap(strip.ink, columns, rows, cv2.INTER_LINEAR), (int(low[0]), int(low[1]))


@dataclass(frozen=True)
class Paint:
    """How a line looks.

    Args:
        colour: RGB, 0 … 255.
        opacity: 0 … 1.
        blur: standard deviation in pixels.
        edge: RGB of an outline, if there is one.
        shadow: how far to the lower right a shadow falls, in pixels; 0 for none.
    """

    colour: Array
    opacity: float
    blur: float
    edge: Array | None = None
    shadow: int = 0


def paint_over(picture: Array, ink: NDArray[np.float32], corner: tuple[int, int], paint: Paint) -> None:
    """Puts ink (h, w) onto a float32 picture (H, W, 3) at a column and row, in place.

    The paint takes the light of the place: it is brighter where the picture around is.
    """
    if not ink.size:
        return
    rows = slice(corner[1], corner[1] + ink.shape[0])
    columns = slice(corner[0], corner[0] + ink.shape[1])
    under = picture[rows, columns]
    light = cv2.GaussianBlur(under.mean(axis=2), (0, 0), 6)
    light = np.clip(0.6 + 0.4 * light / max(float(light.mean()), 1.0), 0.6, 1.3)[..., None]
    if paint.shadow:
        fallen = np.roll(ink, (paint.shadow, paint.shadow), axis=(0, 1))
        _cover(under, cv2.GaussianBlur(fallen, (0, 0), paint.shadow), np.zeros(3), 0.6)
    if paint.edge is not None:
        _cover(under, cv2.dilate(ink, np.ones((3, 3), np.uint8)), paint.edge * light, paint.opacity)
    if paint.blur:
        ink = cv2.GaussianBlur(ink, (0, 0), paint.blur)
    _cover(under, ink, paint.colour * light, paint.opacity)


def _cover(under: Array, ink: Array, colour: Array, opacity: float) -> None:
    share = np.clip(ink * opacity, 0, 1)[..., None]
    under += share * (colour - under)
