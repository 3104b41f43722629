"""Pictures of label maps: the classes' colours over the photograph, their borders, and a legend beside it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Rgb = NDArray[np.uint8]

GOLDEN_RATIO = 0.618034  # steps of this length never fall close to an earlier hue
ROW = 20  # pixels of a line of the legend


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
    colours = np.asarray(palette, np.float32).reshape(-1, 3)
    has_class = labels < len(colours)
    tint = colours[np.where(has_class, labels, 0)]
    mixed = np.where(has_class[..., None], image * (1 - opacity) + tint * opacity, image)
    mixed[borders(labels)] = 255
    return mixed.round().astype(np.uint8)


def borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W): pixels whose right or lower neighbour has another label."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    return found


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
    height = max(len(tinted), ROW * len(areas))
    tinted = np.pad(tinted, ((0, height - len(tinted)), (0, 0), (0, 0)), constant_values=255)
    column = legend(areas, dict(zip(classes, palette, strict=True)), labels.size, height)
    return np.concatenate([tinted, column], axis=1)
