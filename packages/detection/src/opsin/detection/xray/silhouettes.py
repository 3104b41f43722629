"""Thickness of simulated things, drawn as silhouettes: the twelve prohibited items, and what lies in bags.

A silhouette is a list of parts on a square of 1 x 1: a material, a thickness in centimetres, and a drawing.
Rods and tubes are round, so their thickness falls off to the edge; plates have one thickness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Point = tuple[float, float]
Material = Literal["organic", "light", "metal"]
MATERIALS: tuple[Material, ...] = ("organic", "light", "metal")
"""Plastics, cloth and paper; glass, aluminium and powders; steel and brass."""

_FINE = 2  # silhouettes are drawn on a grid this many times finer than the pixels
_SHIFT = 4  # OpenCV's fixed-point bits


@dataclass(frozen=True)
class Part:
    """One part of a thing: where its mask is drawn, and what it is made of."""

    material: Material
    thickness: float
    draw: Callable[[NDArray[np.uint8]], None]
    round: bool = False


def _fixed(points: Sequence[Point], side: int) -> NDArray[np.int32]:
    return np.rint(np.asarray(points, float) * side * 2**_SHIFT).astype(np.int32)


def rod(material: Material, thickness: float, points: Sequence[Point], width: float) -> Part:
    """A round rod or wire along a line of points."""

    def draw(mask: NDArray[np.uint8]) -> None:
        side = mask.shape[0]
        cv2.polylines(mask, [_fixed(points, side)], False, 1, max(1, round(width * side)), cv2.LINE_8, _SHIFT)

    return Part(material, thickness, draw, round=True)


def plate(material: Material, thickness: float, points: Sequence[Point]) -> Part:
    """A flat plate with the given corners."""

    def draw(mask: NDArray[np.uint8]) -> None:
        cv2.fillPoly(mask, [_fixed(points, mask.shape[0])], 1, cv2.LINE_8, _SHIFT)

    return Part(material, thickness, draw)


def ring(material: Material, thickness: float, centre: Point, radius: float, width: float) -> Part:
    """A round wire bent to a circle."""
    angles = np.linspace(0, 2 * np.pi, 40)
    points = [(centre[0] + radius * np.cos(a), centre[1] + radius * np.sin(a)) for a in angles]
    return rod(material, thickness, points, width)


def _box(material: Material, thickness: float, left: float, top: float, right: float, bottom: float) -> Part:
    return plate(material, thickness, [(left, top), (right, top), (right, bottom), (left, bottom)])


ITEMS: dict[str, tuple[Part, ...]] = {
    "Baton": (
        rod("metal", 1.6, [(0.5, 0.05), (0.5, 0.6)], 0.07),
        rod("organic", 3.0, [(0.5, 0.62), (0.5, 0.95)], 0.12),
    ),
    "Pliers": (
        rod("metal", 1.2, [(0.42, 0.08), (0.47, 0.3), (0.56, 0.42), (0.68, 0.95)], 0.09),
        rod("metal", 1.2, [(0.58, 0.08), (0.53, 0.3), (0.44, 0.42), (0.32, 0.95)], 0.09),
        plate("metal", 1.4, [(0.42, 0.3), (0.5, 0.25), (0.58, 0.3), (0.58, 0.42), (0.42, 0.42)]),
    ),
    "Hammer": (
        rod("organic", 3.0, [(0.5, 0.25), (0.5, 0.95)], 0.09),
        _box("metal", 2.6, 0.26, 0.08, 0.66, 0.24),
        plate("metal", 1.6, [(0.66, 0.1), (0.82, 0.16), (0.66, 0.22)]),
    ),
    "Powerbank": (
        _box("organic", 1.0, 0.24, 0.08, 0.76, 0.92),
        _box("metal", 0.35, 0.3, 0.22, 0.48, 0.86),
        _box("metal", 0.35, 0.52, 0.22, 0.7, 0.86),
        _box("light", 0.8, 0.32, 0.11, 0.68, 0.19),
    ),
    "Scissors": (
        plate("metal", 0.5, [(0.44, 0.05), (0.56, 0.52), (0.47, 0.56)]),
        plate("metal", 0.5, [(0.56, 0.05), (0.44, 0.52), (0.53, 0.56)]),
        ring("organic", 1.2, (0.34, 0.76), 0.13, 0.06),
        ring("organic", 1.2, (0.66, 0.76), 0.13, 0.06),
        rod("metal", 0.8, [(0.46, 0.5), (0.4, 0.64)], 0.05),
        rod("metal", 0.8, [(0.54, 0.5), (0.6, 0.64)], 0.05),
    ),
    "Wrench": (
        _box("metal", 0.9, 0.44, 0.28, 0.56, 0.82),
        rod("metal", 1.2, [(0.33, 0.06), (0.35, 0.22), (0.5, 0.28), (0.65, 0.22), (0.67, 0.06)], 0.1),
        ring("metal", 1.2, (0.5, 0.87), 0.08, 0.07),
    ),
    "Gun": (
        _box("metal", 1.8, 0.06, 0.2, 0.92, 0.36),
        plate("metal", 1.4, [(0.62, 0.36), (0.86, 0.36), (0.96, 0.86), (0.74, 0.86)]),
        rod("metal", 0.7, [(0.42, 0.38), (0.44, 0.54), (0.62, 0.54)], 0.05),
        _box("organic", 2.0, 0.68, 0.42, 0.88, 0.8),
    ),
    "Bullet": (
        _box("metal", 2.2, 0.36, 0.42, 0.64, 0.95),
        plate("metal", 2.0, [(0.36, 0.42), (0.42, 0.18), (0.5, 0.05), (0.58, 0.18), (0.64, 0.42)]),
    ),
    "Sprayer": (
        _box("light", 0.5, 0.28, 0.3, 0.72, 0.95),
        _box("organic", 4.0, 0.31, 0.4, 0.69, 0.93),
        _box("metal", 0.7, 0.38, 0.16, 0.62, 0.3),
        _box("organic", 1.2, 0.42, 0.05, 0.58, 0.16),
    ),
    "HandCuffs": (
        ring("metal", 1.0, (0.27, 0.5), 0.19, 0.07),
        ring("metal", 1.0, (0.73, 0.5), 0.19, 0.07),
        rod("metal", 1.2, [(0.45, 0.5), (0.55, 0.5)], 0.09),
    ),
    "Knife": (
        plate("metal", 0.45, [(0.44, 0.58), (0.44, 0.16), (0.5, 0.04), (0.58, 0.2), (0.58, 0.58)]),
        rod("organic", 2.2, [(0.51, 0.62), (0.51, 0.94)], 0.13),
        rod("metal", 0.5, [(0.51, 0.6), (0.51, 0.86)], 0.05),
    ),
    "Lighter": (
        _box("organic", 1.2, 0.32, 0.3, 0.68, 0.95),
        _box("metal", 0.8, 0.32, 0.08, 0.68, 0.28),
        rod("metal", 0.8, [(0.44, 0.14), (0.56, 0.14)], 0.12),
    ),
}

LENGTHS = {
    "Baton": (70, 95),
    "Pliers": (50, 70),
    "Hammer": (55, 80),
    "Powerbank": (40, 60),
    "Scissors": (45, 65),
    "Wrench": (50, 75),
    "Gun": (50, 75),
    "Bullet": (18, 28),
    "Sprayer": (45, 65),
    "HandCuffs": (55, 75),
    "Knife": (50, 75),
    "Lighter": (24, 34),
}
"""Side of an item's square in pixels, from … to."""

CLUTTER: dict[str, tuple[Part, ...]] = {
    "bottle": (
        rod("organic", 6.0, [(0.5, 0.3), (0.5, 0.9)], 0.3),
        rod("organic", 2.0, [(0.5, 0.06), (0.5, 0.3)], 0.12),
    ),
    "book": (_box("organic", 3.0, 0.15, 0.08, 0.85, 0.92),),
    "can": (_box("light", 0.3, 0.3, 0.1, 0.7, 0.9), rod("organic", 5.0, [(0.5, 0.15), (0.5, 0.85)], 0.36)),
    "keys": (
        ring("metal", 0.4, (0.5, 0.25), 0.14, 0.04),
        rod("metal", 0.3, [(0.42, 0.38), (0.3, 0.8)], 0.07),
        rod("metal", 0.3, [(0.58, 0.38), (0.66, 0.85)], 0.07),
    ),
    "cable": (
        rod("metal", 0.25, [(0.1, 0.5), (0.3, 0.2), (0.55, 0.7), (0.75, 0.3), (0.9, 0.6)], 0.02),
        rod("organic", 0.5, [(0.1, 0.5), (0.3, 0.2), (0.55, 0.7), (0.75, 0.3), (0.9, 0.6)], 0.05),
    ),
    "phone": (
        _box("light", 0.7, 0.28, 0.08, 0.72, 0.92),
        _box("metal", 0.15, 0.33, 0.4, 0.67, 0.86),
    ),
    "umbrella": (
        rod("metal", 0.5, [(0.5, 0.05), (0.5, 0.85)], 0.03),
        rod("organic", 2.0, [(0.5, 0.15), (0.5, 0.75)], 0.12),
    ),
}


def thickness_maps(parts: Sequence[Part], size: int, turn: float, stretch: float) -> dict[str, Map]:
    """Centimetres of each material over a square of `size` pixels.

    Args:
        parts: of the thing.
        size: side in pixels.
        turn: degrees that the thing is turned by.
        stretch: its width over its height, relative to the drawing.
    """
    side = size * _FINE
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), turn, 1 / 2**0.5)  # a turned square stays inside
    matrix[:, 0] *= stretch
    matrix[:, 2] += (1 - stretch) * side / 2 * matrix[:, 0] / stretch
    maps: dict[str, Map] = {}
    for part in parts:
        mask = np.zeros((side, side), np.uint8)
        part.draw(mask)
        profile = _profile(mask) if part.round else mask.astype(np.float32)
        turned = cv2.warpAffine(profile * part.thickness, matrix, (side, side), flags=cv2.INTER_LINEAR)
        reduced = cv2.resize(turned, (size, size), interpolation=cv2.INTER_AREA)
        maps[part.material] = maps.get(part.material, np.float32(0)) + reduced
    return maps


def _profile(mask: NDArray[np.uint8]) -> Map:
    """Thickness of a round body with this shadow, 1 along its middle: the chord of a circle."""
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    radius: Any = max(1.0, float(depth.max()))
    inward = np.clip(1 - depth / radius, 0, 1)
    return np.asarray(np.sqrt(1 - inward**2) * (mask > 0), np.float32)
