"""ViTAE v2's cells with varied-size window attention: convolutions beside attention.

A stage is a reduction cell and then normal cells. Maps are (B, C, H, W), channels-last in memory.

What a naive reading gets wrong: the depth-wise position convolution stands inside the attention branch, so
the residual of a normal cell is its plain input; a reduction cell has no residual from its pyramid to the
attention's result; norms have an epsilon of 1e-6 in normal cells and 1e-5 in reduction cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.layers.conv_norm import fold_conv
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.mlp import Mlp

NORMAL_EPS, REDUCTION_EPS = 1e-6, 1e-5


class ParallelConvs(nn.Sequential):
    """The parallel convolution module: three 3x3 convolutions, a BatchNorm and SiLU after the first two.

    Args:
        widths: channels in, after the first, after the second, out.
        groups: groups of every convolution.
        strides: strides of the three.
    """

    def __init__(self, widths: Sequence[int], groups: int, strides: Sequence[int] = (1, 1, 1)) -> None:
        layers: list[nn.Module] = []
        for index, stride in enumerate(strides):
            layers.append(nn.Conv2d(widths[index], widths[index + 1], 3, stride, 1, groups=groups))
            if index < 2:
                layers += [nn.BatchNorm2d(widths[index + 1]), nn.SiLU()]
        super().__init__(*layers)

    def fused(self) -> nn.Sequential:
        """The same in evaluation, without norms."""
        folded: list[nn.Module] = []
        for layer in self.children():
            if isinstance(layer, nn.BatchNorm2d):
                conv = folded.pop()
                assert isinstance(conv, nn.Conv2d)
                layer = fold_conv(conv, layer)
            folded.append(layer)
        return nn.Sequential(*folded)


class PyramidReduction(nn.Module):
    """The pyramid reduction module: strided convolutions that differ in dilation, side by side.

    Sides round up: what fills no whole stride is padded with zeros at the bottom and right.

    Args:
        in_channels: channels in.
        embed_dim: channels of each convolution, E.
        kernel_size: side of the kernels.
        stride: stride.
        dilations: one a convolution.
        op: 'cat' puts the convolutions' channels side by side, 'sum' adds them.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        kernel_size: int,
        stride: int,
        dilations: Sequence[int],
        op: Literal["cat", "sum"] = "cat",
    ) -> None:
        super().__init__()
        self.stride, self.op = stride, op
        self.out_channels = embed_dim * (len(dilations) if op == "cat" else 1)
        self.convs = nn.ModuleList()
        for dilation in dilations:
            padding = math.ceil(((kernel_size - 1) * dilation + 1 - stride) / 2)
            conv = nn.Conv2d(in_channels, embed_dim, kernel_size, stride, padding, dilation)
            self.convs.append(nn.Sequential(conv, nn.GELU()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        below, right = (-side % self.stride for side in x.shape[2:])
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        maps = [conv(x) for conv in self.convs]
        return torch.cat(maps, 1) if self.op == "cat" else torch.stack(maps).sum(0)


class Attended(nn.Module):
    """A position convolution, a norm and the attention; what both cells have.

    Args:
        dim: channels C.
        attn: the attention.
        eps: the norms' epsilon.
        pos_size: side of the depth-wise convolution's kernel, odd; 0 for none.
        mlp_ratio: hidden over outer width of the perceptron after the attention.
    """

    def __init__(
        self, dim: int, attn: VSAWindowAttention, *, eps: float, pos_size: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=eps)
        if pos_size:
            self.pos = nn.Conv2d(dim, dim, pos_size, padding=pos_size // 2, groups=dim)
        self.has_pos = bool(pos_size)
        self.attn = attn
        self.norm2 = LayerNorm2d(attn.out_dim, eps=eps)
        self.mlp = Mlp(attn.out_dim, int(attn.out_dim * mlp_ratio))

    def attend(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H, W)."""
        return self.attn(self.norm1(x + self.pos(x) if self.has_pos else x))

    def transform(self, x: Tensor) -> Tensor:
        """The perceptron's branch of (B, D, H, W)."""
        return self.mlp(self.norm2(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormalCell(Attended):
    """Attention and three convolutions side by side, then a perceptron; residual.

    Args:
        dim: channels C.
        attn: the attention, of C channels out.
        group: groups of the convolutions.
        pos_size: side of the position convolution's kernel, odd; 0 for none.
        mlp_ratio: hidden over outer width of the perceptron and of the convolutions.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        attn: VSAWindowAttention,
        group: int,
        *,
        pos_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(dim, attn, eps=NORMAL_EPS, pos_size=pos_size, mlp_ratio=mlp_ratio)
        self.PCM = ParallelConvs((dim, int(dim * mlp_ratio), dim, dim), group)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + self.drop_path(self.attend(x)) + self.drop_path(self.PCM(x))
        return x + self.drop_path(self.transform(x))


class ReductionCell(Attended):
    """A pyramid of dilated convolutions that shrinks the map, attention over it, three convolutions beside.

    Args:
        in_channels: channels in.
        prm: the pyramid.
        attn: the attention, from the pyramid's channels to D.
        group: groups of the convolutions beside.
        inner_dim: their channels before the last.
        pos_size: side of the position convolution's kernel, odd; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        prm: PyramidReduction,
        attn: VSAWindowAttention,
        group: int,
        *,
        inner_dim: int,
        pos_size: int = 7,
    ) -> None:
        super().__init__(prm.out_channels, attn, eps=REDUCTION_EPS, pos_size=pos_size, mlp_ratio=1.0)
        self.PRM = prm
        widths = (in_channels, inner_dim, inner_dim, attn.out_dim)
        self.PCM = ParallelConvs(widths, group, _halvings(prm.stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, D, ceil(H / stride), ceil(W / stride))."""
        y = self.attend(self.PRM(x)) + self.PCM(x)
        return y + self.transform(y)


def _halvings(stride: int) -> tuple[int, int, int]:
    """The strides of the three convolutions, 1 or 2 each, the first ones first."""
    halvings = stride.bit_length() - 1
    first, second, third = (2 if index < halvings else 1 for index in range(3))
    return first, second, third
