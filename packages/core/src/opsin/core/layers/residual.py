"""Residual branches under the published name `m` (LeViT, SHViT, EfficientViT, RepViT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.layers.conv_norm import ConvNorm, fold_conv
from opsin.core.layers.drop_path import DropPath


class Residual(nn.Module):
    """x + m(x).

    Args:
        m: the branch.
        drop_path_rate: chance of dropping the branch of a sample, in [0, 1).
    """

    def __init__(self, m: nn.Module, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.m = m
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """A tensor to one of the same shape."""
        return x + self.drop_path(self.m(x))


class ResidualDepthwise(nn.Module):
    """x + m(x) with a depth-wise convolution and its BatchNorm as m; one depth-wise convolution once fused.

    Args:
        dim: channels C.
        kernel_size: side of the kernel, odd.
        weight_init: what the norm's scale begins with.
        drop_path_rate: chance of dropping the branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, kernel_size: int = 3, *, weight_init: float = 1.0, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.m = ConvNorm(dim, dim, kernel_size, groups=dim, weight_init=weight_init)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.drop_path(self.m(x))

    @torch.no_grad()
    def fused(self) -> nn.Conv2d:
        """The convolution that computes the same in evaluation; x itself is a one in the kernel's middle."""
        conv = fold_conv(self.m.c, self.m.bn)
        middle = conv.weight.shape[-1] // 2
        conv.weight[:, :, middle, middle] += 1
        return conv
