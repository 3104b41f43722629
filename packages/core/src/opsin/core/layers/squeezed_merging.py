"""Halving a map with an inverted bottleneck (EfficientViT, arXiv 2305.07027; SHViT, arXiv 2401.16456)."""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.layers.conv_ffn import ConvFFN
from opsin.core.layers.conv_norm import ConvNorm
from opsin.core.layers.residual import Residual, ResidualDepthwise
from opsin.core.layers.squeeze_excite import SqueezeExcite


class SqueezedMerging(nn.Module):
    """1x1 to four times the width, depth-wise 3x3 of stride 2, squeeze-and-excitation, 1x1 to the new width.

    Args:
        dim: channels in, C.
        out_dim: channels out.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        hidden_dim = 4 * dim
        self.conv1 = ConvNorm(dim, hidden_dim)
        self.act = nn.ReLU()
        self.conv2 = ConvNorm(hidden_dim, hidden_dim, 3, stride=2, groups=hidden_dim)
        # a quarter of the hidden width, to the nearest multiple of 8
        self.se = SqueezeExcite(hidden_dim, max(8, (dim + 4) // 8 * 8))
        self.conv3 = ConvNorm(hidden_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_dim, ceil(H / 2), ceil(W / 2))."""
        x = self.act(self.conv2(self.act(self.conv1(x))))
        return self.conv3(self.se(x))


def sandwiched_merging(dim: int, out_dim: int) -> list[nn.Module]:
    """The three modules between two stages: the merging, a residual depth-wise 3x3 and FFN on either side."""
    before, after = (
        nn.Sequential(ResidualDepthwise(width), Residual(ConvFFN(width, 2 * width)))
        for width in (dim, out_dim)
    )
    return [before, SqueezedMerging(dim, out_dim), after]
