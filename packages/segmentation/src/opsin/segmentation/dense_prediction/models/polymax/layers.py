"""Convolution, batch norm and GELU under kMaX-DeepLab's names, and its initial weights."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-3
BN_MOMENTUM = 0.01


def batch_norm1d(channels: int) -> nn.BatchNorm1d:
    """Batch norm of (B, C, N) with kMaX's constants."""
    return nn.BatchNorm1d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def batch_norm2d(channels: int, scale: float = 1.0) -> nn.BatchNorm2d:
    """Batch norm of (B, C, H, W) whose scale begins at `scale`."""
    norm = nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)
    nn.init.constant_(norm.weight, scale)
    return norm


class ConvBN(nn.Module):
    """Convolution `conv`, batch norm `norm`, and GELU if asked for.

    Args:
        inner: channels in.
        outer: channels out.
        kernel: side of the kernel; the size of a map stays.
        flat: for (B, C, N) instead of (B, C, H, W).
        groups: of the convolution.
        bias: of the convolution, besides the norm's.
        norm: whether there is one.
        act: whether GELU follows.
        std: of the initial weights, a truncated normal; sqrt(2 / channels in) if None. A depthwise
            convolution begins by Xavier.
        scale: what the norm's scale begins with.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int = 1,
        *,
        flat: bool = False,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        act: bool = False,
        std: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        conv = nn.Conv1d if flat else nn.Conv2d
        self.conv = conv(inner, outer, kernel, padding=kernel // 2, groups=groups, bias=bias)
        self.act = act
        if norm:
            self.norm = batch_norm1d(outer) if flat else batch_norm2d(outer)
            nn.init.constant_(self.norm.weight, scale)
        self.normed = norm
        if groups > 1:
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            std = math.sqrt(2 / inner) if std is None else std
            nn.init.trunc_normal_(self.conv.weight, std=std, a=-2 * std, b=2 * std)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C in, …) to (B, C out, …)."""
        x = self.conv(x)
        if self.normed:
            x = self.norm(x)
        return F.gelu(x) if self.act else x
