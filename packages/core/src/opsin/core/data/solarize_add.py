"""The operation SolarizeAdd of AutoAugment's lists, which albumentations lacks."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from numpy.typing import NDArray


class SolarizeAdd(albumentations.ImageOnlyTransform):
    """Brightens the dark half: adds a number to every value below 128 of a uint8 picture, up to 255.

    Args:
        addition: the least and the greatest number that is added.
        p: probability.
    """

    class InitSchema(BaseTransformInitSchema):
        """The arguments, as albumentations checks them."""

        addition: tuple[float, float]

    def __init__(self, addition: tuple[float, float] = (0.0, 110.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.addition = addition

    def get_params(self) -> dict[str, Any]:
        """Draws the number."""
        return {"added": int(self.py_random.uniform(*self.addition))}

    def apply(self, img: NDArray[np.uint8], added: int = 0, **params: Any) -> NDArray[np.uint8]:
        """(H, W, C) uint8 to the same."""
        values = np.arange(256)
        return np.where(values < 128, np.minimum(values + added, 255), values).astype(np.uint8)[img]
