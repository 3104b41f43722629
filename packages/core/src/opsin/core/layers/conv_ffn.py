"""Feed-forward network of 1x1 convolutions with BatchNorm (LeViT, SHViT, EfficientViT)."""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.layers.conv_norm import ConvNorm


class ConvFFN(nn.Module):
    """1x1 `pw1`, ReLU, 1x1 `pw2`, both normalised; the second norm's scale begins at zero.

    Args:
        dim: channels C.
        hidden_dim: channels between the two.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.pw1 = ConvNorm(dim, hidden_dim)
        self.act = nn.ReLU()
        self.pw2 = ConvNorm(hidden_dim, dim, weight_init=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.pw2(self.act(self.pw1(x)))
