"""Polygons of text: what every part of text detection does with them.

A polygon is an array (N, 2) of corners, x and y in pixels, x to the right and y down; the pixel in row i and
column j covers [j, j + 1] x [i, i + 1]. shapely and OpenCV do the geometry.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

Polygon = NDArray[np.floating[Any]]
"""(N, 2) corners, x y in pixels."""

LEAST_PIXELS = 10
"""A mask of fewer pixels has no outline."""

WHOLE = 0.5
"""Share of a self-crossing polygon's area that its largest piece needs to stand for all of it."""


def repair_polygon(polygon: ArrayLike) -> Polygon:
    """A simple polygon, float32 and clockwise, that covers what `polygon` was meant to cover.

    Corners given twice go. Four corners in a crossing order become their convex hull: no quadrilateral of
    text is meant as a bow tie. A longer outline that crosses itself loses its small loops.

    Args:
        polygon: (N, 2) corners, x y in pixels.

    Raises:
        ValueError: for what is no polygon: numbers that are not finite, fewer than three different corners,
            no area, or an outline that crosses itself into pieces of which none is more than half. The
            message says which.
    """
    points = np.asarray(polygon, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"corners of shape {points.shape} instead of (N, 2)")
    if not np.isfinite(points).all():
        raise ValueError("a corner is not finite")
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    if len(np.unique(points, axis=0)) < 3:
        raise ValueError("fewer than three different corners")
    shape = shapely.Polygon(points)
    if not shape.is_valid:
        whole = shape.convex_hull if len(points) == 4 else shapely.make_valid(shape)
        shape = _largest(whole)
        if shape.area < WHOLE * whole.area:
            raise ValueError("the outline crosses itself into several pieces")
    if not shape.area:
        raise ValueError("the polygon has no area")
    return clockwise(shapely.get_coordinates(shape.exterior)[:-1].astype(np.float32))


def clockwise(polygon: Polygon) -> Polygon:
    """The same polygon with its corners clockwise as seen (y points down), the first one staying first."""
    x, y = polygon.T
    turned = float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) < 0
    return np.roll(polygon[::-1], 1, axis=0) if turned else polygon


def min_area_rectangle(polygon: Polygon) -> Polygon:
    """The corners (4, 2) float32 of the smallest rectangle, at any angle, around a polygon.

    Clockwise, from the corner that is nearest to the top left.
    """
    corners = clockwise(cv2.boxPoints(cv2.minAreaRect(np.ascontiguousarray(polygon, np.float32))))
    return np.roll(corners, -int(corners.sum(axis=1).argmin()), axis=0)


def clip_polygon(polygon: Polygon, frame: ArrayLike) -> tuple[Polygon | None, float]:
    """The largest piece of a polygon inside a frame x1, y1, x2, y2, and the share of its area that this is.

    None and 0 where they share no area.
    """
    x1, y1, x2, y2 = np.asarray(frame, np.float64)
    if (polygon >= (x1, y1)).all() and (polygon <= (x2, y2)).all():
        return polygon, 1.0
    shape = polygon_shape(polygon)
    inside = _largest(shape.intersection(shapely.box(x1, y1, x2, y2)))
    if not inside.area:
        return None, 0.0
    corners = shapely.get_coordinates(inside.exterior)[:-1].astype(np.float32)
    return clockwise(corners), float(inside.area / shape.area)


def bounding_box(polygon: Polygon) -> Polygon:
    """x1, y1, x2, y2 of the smallest upright box around a polygon."""
    return np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])


def polygon_iou(first: Polygon, second: Polygon) -> float:
    """Intersection over union of two polygons' areas, 0 where both are empty."""
    a, b = polygon_shape(first), polygon_shape(second)
    shared = a.intersection(b).area
    union = a.area + b.area - shared
    return float(shared / union) if union else 0.0


def polygon_shape(polygon: Polygon) -> Any:
    """A polygon as shapely's geometry; one that crosses itself becomes the valid shape of its pieces."""
    shape = shapely.Polygon(np.asarray(polygon, np.float64))
    return shape if shape.is_valid else shapely.make_valid(shape)


def rasterize(polygon: Polygon, frame: ArrayLike, size: tuple[int, int] = (28, 28)) -> NDArray[np.bool_]:
    """Which cells of a grid over a frame have their centre inside a polygon.

    Args:
        polygon: (N, 2) corners in pixels.
        frame: x1, y1, x2, y2 in pixels.
        size: rows and columns of the grid.

    Returns:
        bool of shape `size`; the centre of cell (i, j) is at (j + 0.5) / columns of the frame's width and
        (i + 0.5) / rows of its height.
    """
    rows, columns = size
    x1, y1, x2, y2 = np.asarray(frame, np.float64)
    x = x1 + (np.arange(columns) + 0.5) / columns * (x2 - x1)
    y = y1 + (np.arange(rows) + 0.5) / rows * (y2 - y1)
    shape = polygon_shape(polygon)
    shapely.prepare(shape)
    inside: NDArray[np.bool_] = shapely.contains_xy(shape, x[None, :], y[:, None])
    return inside


def mask_to_polygon(mask: NDArray[Any], *, tolerance: float = 0.005) -> Polygon | None:
    """The simplified outline of the largest piece of a mask.

    The outline runs around the pixels, not through their centres, so that area is kept. It is simplified by
    Douglas and Peucker's rule; where fewer than four corners remain, the smallest rectangle stands for it.

    Args:
        mask: (H, W), true or non-zero inside.
        tolerance: how far the outline may move, as a share of its length, but not more than a twentieth of
            how thick it is, as the length of a long line says nothing about its strokes, and not less than
            a pixel, the height of the steps in it.

    Returns:
        (N, 2) float32, clockwise, N >= 4, or None when the largest piece has fewer than 10 pixels.
    """
    outline = max(_around_pixels(mask), key=lambda shape: float(shape.area), default=None)
    if outline is None or outline.area < LEAST_PIXELS:
        return None
    thickness = 2 * outline.area / outline.length
    simple = outline.simplify(max(min(tolerance * outline.length, thickness / 20), 1.0))
    corners = shapely.get_coordinates(simple.exterior)[:-1].astype(np.float32)
    return clockwise(corners) if len(corners) >= 4 else min_area_rectangle(corners)


def _around_pixels(mask: NDArray[Any]) -> list[Any]:
    """The shapes of a mask's pieces, along the borders of their pixels, with all that they enclose.

    OpenCV gives pixels on the contour. In a mask of twice the size those left and above have even, those
    right and below odd positions, so that half of the next number is the pixels' corner.
    """
    doubled = np.ascontiguousarray(np.asarray(mask, np.uint8).repeat(2, axis=0).repeat(2, axis=1))
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    shapes = [shapely.Polygon((contour[:, 0] + 1) // 2) for contour in contours]
    return [shape if shape.is_valid else _largest(shapely.make_valid(shape)) for shape in shapes]


def _largest(shape: Any) -> Any:
    """The largest polygon among a shape's parts, without holes; an empty polygon if there is none."""
    parts = [p for p in shapely.get_parts(shapely.get_parts(shape)) if p.geom_type == "Polygon"]
    return shapely.Polygon(max(parts, key=lambda part: float(part.area), default=shapely.Polygon()).exterior)
