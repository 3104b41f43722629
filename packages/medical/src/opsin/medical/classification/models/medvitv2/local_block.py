"""The local block of MedViTV2 (LFP): neighborhood attention and a convolutional feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath
from opsin.core.ops.neighborhood_attention import neighborhood_attention
from opsin.medical.classification.models.medvitv2.layers import (
    Layout,
    LocalityFeedForward,
    as_map,
    as_tokens,
    patch_embed,
)

KERNEL = 7  # tokens a side


class NeighborhoodAttention(nn.Module):
    """Attention of every token to its nearest `KERNEL` x `KERNEL` ones, with relative position bias.

    Args:
        dim: channels C.
        heads: heads.
        kernel_size: tokens a side, odd.
        dilation: distance between neighbours, in tokens.
    """

    def __init__(self, dim: int, heads: int, *, kernel_size: int = KERNEL, dilation: int = 1) -> None:
        super().__init__()
        self.heads, self.kernel_size, self.dilation = heads, kernel_size, dilation
        self.rpb = nn.Parameter(torch.zeros(heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        nn.init.trunc_normal_(self.rpb, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape.

        Raises:
            UserError: if the map is smaller than the window.
        """
        batch, height, width, channels = x.shape
        reach = self.kernel_size * self.dilation
        if min(height, width) < reach:
            raise UserError(
                f"MedViTV2's neighborhood attention needs {reach} x {reach} tokens, here {height} x {width}",
                "give larger pictures: without dilation 97 x 97 pixels are the smallest",
            )
        q, k, v = self.qkv(x).view(batch, height, width, 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5)
        attended = neighborhood_attention(
            q, k, v, kernel_size=self.kernel_size, dilation=self.dilation, rpb=self.rpb
        )
        return self.proj(attended.permute(0, 2, 3, 1, 4).reshape(batch, height, width, channels))


class LocalBlock(nn.Module):
    """LFP: neighborhood attention, then a convolutional feed-forward.

    Args:
        in_channels: channels of the map that comes in.
        out_channels: channels C of the block, a multiple of `head_dim`.
        stride: 1, or 2 to halve the map first.
        kernel_size: of the feed-forward's depth-wise convolution.
        head_dim: channels of a head.
        dilation: of the neighborhood attention.
        mlp_ratio: hidden channels of the feed-forward / C.
        drop_path_rate: of the attention's branch.
        layout: see the module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        kernel_size: int = 3,
        head_dim: int = 32,
        dilation: int = 1,
        mlp_ratio: int = 3,
        drop_path_rate: float = 0.0,
        layout: Layout = "published",
    ) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.patch_embed = patch_embed(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.attn = NeighborhoodAttention(out_channels, out_channels // head_dim, dilation=dilation)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv = LocalityFeedForward(out_channels, kernel_size, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H / stride, W / stride)."""
        x = self.patch_embed(x)
        attended = self.attn(as_tokens(self.norm1(x), self.layout))
        x = x + self.drop_path(as_map(attended, self.layout))
        return x + self.conv(self.norm2(x))
