"""Classification heads that begin with a BatchNorm (LeViT, arXiv 2104.01136, and nets after it)."""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.layers.conv_norm import fold_linear


class NormLinear(nn.Module):
    """BatchNorm (`bn`), then a linear layer (`l`); one linear layer once fused.

    Args:
        in_features: width of the vectors.
        out_features: logits.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(in_features)
        self.l = nn.Linear(in_features, out_features)
        nn.init.trunc_normal_(self.l.weight, std=0.02)
        nn.init.zeros_(self.l.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) to (N, out_features)."""
        return self.l(self.bn(x))

    def fused(self) -> nn.Linear:
        """The one linear layer that computes the same in evaluation."""
        return fold_linear(self.bn, self.l)
