"""The loss of multi-scale guided attention: eight segmentations, four guidances, eight reconstructions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.medical.segmentation.models.multi_scale_attention.network import GuidedOutput
from opsin.registry import MODELS


def segmentation_losses(output: GuidedOutput, target: Tensor) -> Tensor:
    """Cross-entropy of the eight predictions against classes (N, H, W): (8,)."""
    wide = [p.to(torch.promote_types(p.dtype, torch.float32)) for p in output.predictions]
    return torch.stack([F.cross_entropy(prediction, target.long()) for prediction in wide])


def guidance_losses(output: GuidedOutput) -> Tensor:
    """Mean squared difference of each scale's two codes: (4,), the finest scale first."""
    return torch.stack([F.mse_loss(first, second) for first, second in output.codes])


def reconstruction_losses(output: GuidedOutput) -> Tensor:
    """Mean squared difference of what the autoencoders were given and made: (8,)."""
    return torch.stack([F.mse_loss(given, decoded) for given, decoded in output.reconstructions])


@MODELS.register_module()
class GuidedAttentionLoss(nn.Module):
    """The three sums, weighed.

    Args:
        guidance_weight: weight of the codes' agreement.
        reconstruction_weight: weight of the autoencoders' faithfulness.
    """

    def __init__(self, guidance_weight: float = 0.25, reconstruction_weight: float = 0.1) -> None:
        super().__init__()
        self.guidance_weight, self.reconstruction_weight = guidance_weight, reconstruction_weight

    def forward(self, output: GuidedOutput, target: Tensor) -> dict[str, Tensor]:
        """The network's output while training and classes (N, H, W) to three losses."""
        return {
            "loss_ce": segmentation_losses(output, target).sum(),
            "loss_guided": self.guidance_weight * guidance_losses(output).sum(),
            "loss_reconstruction": self.reconstruction_weight * reconstruction_losses(output).sum(),
        }
