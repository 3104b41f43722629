"""Pictures of label maps: the classes' colours over the photograph, their borders, and a legend beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from opsin.core.data.label_overlay import borders, distinct_colours, overlay

__all__ = [
    "borders",
    "class_areas",
    "distinct_colours",
    "draw_semantic",
    "legend",
    "overlay",
    "with_legend",
]

Rgb = NDArray[np.uint8]

ROW = 20  # pixels of a line of the legend


def class_areas(labels: NDArray[Any], classes: Sequence[str]) -> dict[str, int]:
    """Pixels of every class that occurs in `labels` (H, W), the largest first."""
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = sorted(range(len(classes)), key=lambda i: (-counts[i], i))
    return {classes[i]: int(counts[i]) for i in order if counts[i]}


def legend(areas: dict[str, int], colours: dict[str, Sequence[int]], total: int, height: int) -> Rgb:
    """A column (height, W, 3): colour, name and share of the picture of every class, as many as fit.

    Args:
        areas: pixels of each class, in the order of the lines.
        colours: RGB of each class.
        total: pixels of the picture.
        height: of the column.
    """
    lines = [f"{name} {pixels / total:.1%}" for name, pixels in areas.items()]
    font = ImageFont.load_default(12)
    width = int(max((font.getlength(line) for line in lines), default=0)) + ROW + 10
    column = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(column)
    for number, (name, line) in enumerate(zip(areas, lines, strict=True)):
        top = number * ROW
        draw.rectangle((5, top + 4, 17, top + 16), fill=tuple(colours[name]))
        draw.text((ROW + 3, top + 3), line, fill="black", font=font)
    return np.asarray(column)


def draw_semantic(
    image: Rgb, labels: NDArray[Any], classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> Rgb:
    """Overlay and legend side by side, (H', W', 3); a small picture is padded below so that the legend fits.

    Args:
        image: RGB uint8 (H, W, 3).
        labels: (H, W) class indices.
        classes: their names.
        palette: their colours.
    """
    tinted = overlay(image, labels, palette)
    areas = class_areas(labels, classes)
    return with_legend(tinted, areas, dict(zip(classes, palette, strict=True)))


def with_legend(picture: Rgb, areas: dict[str, int], colours: dict[str, Sequence[int]]) -> Rgb:
    """A picture (H, W, 3) and its legend side by side; a small one is padded below so that the legend fits.

    Args:
        picture: RGB uint8.
        areas: pixels of each class, in the order of the lines.
        colours: RGB of each class.
    """
    total = picture.shape[0] * picture.shape[1]
    height = max(len(picture), ROW * len(areas))
    padded = np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255)
    return np.concatenate([padded, legend(areas, colours, total, height)], axis=1)
