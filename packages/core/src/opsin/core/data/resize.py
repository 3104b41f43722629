"""Resizing and cropping as COCO's detectors are trained with, which albumentations lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations
from albumentations.augmentations.crops.transforms import BaseCrop
from albumentations.core.transforms_interface import BaseTransformInitSchema


class ShortestEdge(albumentations.SmallestMaxSize):
    """Resizes so that the shorter side has `short` pixels, or fewer to keep the longer one within `longest`.

    Args:
        short: lengths to choose from at random, in pixels.
        longest: the most that the longer side may have.
        p: probability.
    """

    class InitSchema(BaseTransformInitSchema):
        """The arguments, as albumentations checks them."""

        short: list[int]
        longest: int

    def __init__(self, short: Sequence[int], longest: int, p: float = 1.0) -> None:
        super().__init__(max_size=list(short), p=p)
        self.short = list(short)
        self.longest = longest

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The factor for a picture of shape `params['shape']`."""
        height, width = params["shape"][:2]
        scale = self.py_random.choice(self.short) / min(height, width)
        return {"scale": min(scale, self.longest / max(height, width))}


class CropBetween(BaseCrop):
    """Crops a random place of random size; height and width are drawn apart, at most the picture's.

    Args:
        low: the least side, in pixels.
        high: the greatest side.
        p: probability.
    """

    class InitSchema(BaseTransformInitSchema):
        """The arguments, as albumentations checks them."""

        low: int
        high: int

    def __init__(self, low: int, high: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.low = low
        self.high = high

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The crop for a picture of shape `params['shape']`: x1, y1, x2, y2."""
        height, width = params["shape"][:2]
        rows, columns = (
            self.py_random.randint(min(side, self.low), min(side, self.high)) for side in (height, width)
        )
        y, x = self.py_random.randint(0, height - rows), self.py_random.randint(0, width - columns)
        return {"crop_coords": (x, y, x + columns, y + rows)}
