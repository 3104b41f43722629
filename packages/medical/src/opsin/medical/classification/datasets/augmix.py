"""AugMix (arXiv 1912.02781): a picture mixed with chains of operations on itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from opsin.classification.datasets.rand_augment import operations
from opsin.core.data import Albumentations
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS

# those that AugMix draws from: what corrupts like the test sets' corruptions is left out
NAMES = (
    "AutoContrast",
    "Equalize",
    "Posterize",
    "Solarize",
    "Rotate",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


@TRANSFORMS.register_module()
class AugMix(BaseTransform):
    """Replaces `img` by m * itself + (1 - m) * the weighted sum of chains of one to three operations.

    m comes from Beta(alpha, alpha), the chains' weights from Dirichlet(alpha, …).

    Args:
        severity: strength of the operations, 0 (nearly nothing) to 10.
        width: chains.
        alpha: see above.
        fill: RGB of what turning, shearing and shifting uncover.

    Raises:
        UserError: for a severity outside 0..10, no chain, or an alpha that is not positive.
    """

    def __init__(
        self,
        severity: float = 3.0,
        width: int = 3,
        alpha: float = 1.0,
        fill: tuple[int, int, int] = (128, 128, 128),
    ) -> None:
        if not 0 <= severity <= 10 or width < 1 or alpha <= 0:
            raise UserError(
                f"AugMix with severity={severity}, width={width}, alpha={alpha}",
                "give a severity from 0 to 10, at least one chain, a positive alpha",
            )
        known = operations(0.1 * severity / 10, severity / 10, fill)
        self.operations = [Albumentations([{"p": 1.0, **known[name]}]) for name in NAMES]
        self.width, self.alpha = width, alpha

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mixes one picture; draws from numpy's global generator."""
        image = results["img"]
        weights = np.random.dirichlet([self.alpha] * self.width)
        share = np.random.beta(self.alpha, self.alpha)
        mixed = share * image.astype(np.float32)
        for weight in weights:
            mixed += (1 - share) * weight * self._chain(image)
        results["img"] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
        return results

    def _chain(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        for _ in range(np.random.randint(1, 4)):
            operation = self.operations[np.random.randint(len(self.operations))]
            image = operation({"img": image})["img"]
        return image
