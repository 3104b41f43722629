"""Colours for classes: bright, far apart for neighbours, the same on every run."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

_GOLDEN = 0.61803398875


def palette(count: int) -> list[Colour]:
    """`count` RGB colours; hues go round the circle by the golden ratio, so that any few of them differ."""
    found = []
    for i in range(count):
        hue = (0.58 + i * _GOLDEN) % 1
        red, green, blue = colorsys.hls_to_rgb(hue, (0.55, 0.45, 0.65)[i % 3], 0.85)
        found.append((round(red * 255), round(green * 255), round(blue * 255)))
    return found
