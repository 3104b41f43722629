"""The square crops that trackers see, and the way of boxes into them and back.

A crop of factor f around a box w x h has the side ceil(sqrt(w h) f). What lies outside the picture is black,
and so is one more row or column at the right or lower border that the crop reaches beyond: that is how the
published weights saw it. Boxes are x, y, w, h in pixels unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError

Box = tuple[float, float, float, float]
MARGIN = 10.0  # pixels of a predicted box that stay inside the picture


@dataclass(frozen=True)
class Crop:
    """A square crop.

    Attributes:
        pixels: RGB uint8 (size, size, 3).
        padding: where there is no picture, bool (size, size).
        resize_factor: pixels of the crop over pixels of the picture.
    """

    pixels: NDArray[np.uint8]
    padding: NDArray[np.bool_]
    resize_factor: float


def crop_square(image: NDArray[np.uint8], box: Sequence[float], factor: float, size: int) -> Crop:
    """Cuts the square around a box and resizes it bilinearly.

    Args:
        image: RGB uint8 (H, W, 3).
        box: what the crop is centred on.
        factor: side of the crop over the box's.
        size: side of the result, pixels.

    Raises:
        UserError: if the box has no area.
    """
    x, y, w, h = map(float, box)
    if not (w > 0 and h > 0 and math.isfinite(x + y + w + h)):
        raise UserError(f"the box {box_text(box)} has no area", "give x,y,w,h in pixels with w and h above 0")
    side = math.ceil(math.sqrt(w * h) * factor)
    left, top = round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5)
    height, width = image.shape[:2]
    across, down = _inside(left, side, width), _inside(top, side, height)
    pixels = np.zeros((side, side, 3), np.uint8)
    padding = np.ones((side, side))
    if across.start < across.stop and down.start < down.stop:
        there = image[top + down.start : top + down.stop, left + across.start : left + across.stop]
        pixels[down, across] = there
        padding[down, across] = 0
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    covered = cv2.resize(padding, (size, size), interpolation=cv2.INTER_LINEAR) != 0
    return Crop(resized.astype(np.uint8, copy=False), covered, size / side)


def _inside(start: int, side: int, length: int) -> slice:
    """The part of a crop that holds pixels of the picture, along one axis; beyond the end one pixel less."""
    return slice(max(0, -start), side - max(start + side - length + 1, 0))


def box_in_crop(box: Sequence[float], centred_on: Sequence[float], resize_factor: float, size: int) -> Box:
    """A box as training sees it: over the side of the crop that is centred on another box.

    The crop's centre is taken to be (size - 1) / 2.
    """
    (x, y, w, h), (cx, cy, cw, ch) = box, centred_on
    middle = (size - 1) / 2
    centre_x = middle + (x + 0.5 * w - cx - 0.5 * cw) * resize_factor
    centre_y = middle + (y + 0.5 * h - cy - 0.5 * ch) * resize_factor
    w, h = w * resize_factor, h * resize_factor
    return (centre_x - 0.5 * w) / size, (centre_y - 0.5 * h) / size, w / size, h / size


def box_from_crop(
    predicted: Sequence[float],
    centred_on: Sequence[float],
    resize_factor: float,
    size: int,
    picture: tuple[int, int],
) -> Box:
    """A predicted box in the picture, of which at least `MARGIN` pixels stay inside.

    Args:
        predicted: cx, cy, w, h over the side of the crop.
        centred_on: the box that the crop was cut around.
        resize_factor: of the crop, pixels of it over pixels of the picture.
        size: of the crop, pixels.
        picture: its height and width.
    """
    cx, cy, w, h = (value * size / resize_factor for value in predicted)
    x, y, cw, ch = centred_on
    half = 0.5 * size / resize_factor
    centre_x, centre_y = cx + x + 0.5 * cw - half, cy + y + 0.5 * ch - half
    return clip_box((centre_x - 0.5 * w, centre_y - 0.5 * h, w, h), picture)


def clip_box(box: Sequence[float], picture: tuple[int, int], margin: float = MARGIN) -> Box:
    """A box cut at the borders of a picture (height, width), at least `margin` pixels wide and high."""
    x, y, w, h = box
    height, width = picture
    x1, x2 = min(max(0.0, x), width - margin), min(max(margin, x + w), float(width))
    y1, y2 = min(max(0.0, y), height - margin), min(max(margin, y + h), float(height))
    return x1, y1, max(margin, x2 - x1), max(margin, y2 - y1)


def box_text(box: Sequence[float]) -> str:
    """A box for people, `x,y,w,h`."""
    return ",".join(f"{value:g}" for value in box)
