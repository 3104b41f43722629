"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS


@MODELS.register_module()
class MixupCutmix(nn.Module):
    """Mixes every sample with the one at its mirrored place in the batch, one mixture for the batch.

    Args:
        mixup: alpha of the Beta distribution of mixup's weight; 0 turns mixup off.
        cutmix: alpha of the Beta distribution of the area that CutMix keeps; 0 turns CutMix off.
        probability: chance that a batch is mixed at all.
        switch: chance of CutMix where both are on.

    Raises:
        UserError: if both are off or a chance is outside [0, 1].
    """

    def __init__(
        self, mixup: float = 0.8, cutmix: float = 1.0, probability: float = 1.0, switch: float = 0.5
    ) -> None:
        super().__init__()
        if mixup < 0 or cutmix < 0 or mixup == cutmix == 0:
            raise UserError(
                f"MixupCutmix with mixup={mixup} and cutmix={cutmix}", "one must be above 0, none below"
            )
        if not (0 <= probability <= 1 and 0 <= switch <= 1):
            raise UserError(f"MixupCutmix with probability={probability} and switch={switch} outside [0, 1]")
        self.mixup = mixup
        self.cutmix = cutmix
        self.probability = probability
        self.cutmix_chance = 0.0 if cutmix == 0 else 1.0 if mixup == 0 else switch

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) and target probabilities (N, C) to the same shapes, mixed."""
        if float(torch.rand(())) >= self.probability:
            return images, targets
        if float(torch.rand(())) < self.cutmix_chance:
            images, kept = _cutmix(images, _beta(self.cutmix))
        else:
            kept = _beta(self.mixup)
            images = images * kept + images.flip(0) * (1 - kept)
        return images, targets * kept + targets.flip(0) * (1 - kept)


def _beta(alpha: float) -> float:
    return float(torch.distributions.Beta(alpha, alpha).sample())


def _cutmix(images: Tensor, kept: float) -> tuple[Tensor, float]:
    """Images with a rectangle of their partner's, and the share of the area that they kept.

    The rectangle's centre is anywhere in the picture and what reaches beyond the border is cut off, so the
    share may be larger than the `kept` that was asked for.
    """
    height, width = images.shape[-2:]
    share = (1 - kept) ** 0.5
    top, bottom = _span(height, int(height * share))
    left, right = _span(width, int(width * share))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, size: int) -> tuple[int, int]:
    centre = int(torch.randint(length, ()))
    return max(centre - size // 2, 0), min(centre + size // 2, length)
