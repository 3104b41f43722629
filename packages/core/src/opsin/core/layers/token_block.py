"""The transformer block on tokens that know the size of their map, whatever its attention is."""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp

Grid = tuple[int, int]


class TokenBlock(nn.Module):
    """Norm and attention, norm and perceptron, both residual.

    Args:
        dim: width C.
        attn: called with tokens (B, N, C) and the size of their map.
        mlp_ratio: hidden width of the perceptron in units of C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        eps: epsilon of the norms.
    """

    def __init__(
        self, dim: int, attn: nn.Module, *, mlp_ratio: float, drop_path_rate: float, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        x = x + self.drop_path(self.attend(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """The attention of normed tokens (B, N, C)."""
        return self.attn(x, size)
