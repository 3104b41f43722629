"""The focal loss of the speech experiment (arXiv 2401.11143; focal loss: arXiv 1708.02002)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import unknown
from opsin.registry import MODELS

REDUCTIONS = ("mean", "sum", "none")


@MODELS.register_module()
class SoftmaxFocalLoss(nn.Module):
    """alpha (1 - p + 1e-6) ** gamma CE of each sample, with p = exp(-CE).

    Unlike detectors' focal loss it is one of softmax probabilities, and alpha weighs all classes alike.

    Args:
        alpha: factor.
        gamma: how much more hard samples count.
        reduction: 'mean', 'sum', or 'none' for a loss a sample.

    Raises:
        UserError: for another reduction.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.5,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise unknown("reduction of SoftmaxFocalLoss", reduction, REDUCTIONS)
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, C) and labels (N,) or probabilities (N, C) to the loss, () or (N,)."""
        entropy = F.cross_entropy(logits, targets, reduction="none")
        loss = self.alpha * (1 - (-entropy).exp() + 1e-6) ** self.gamma * entropy
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()
