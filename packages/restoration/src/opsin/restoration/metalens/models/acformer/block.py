"""STAF: spatial and channel attention side by side, fused by weights that the two decide together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.restoration.metalens.models.acformer.attention import ChannelAttention, OverlappingAttention


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a network share.

    Args:
        window_size: side of the windows of spatial attention.
        overlap_ratio: how much larger the windows of keys are.
        spatial_dim_head: width of a head of spatial attention.
        ffn_expansion_factor: width of feed-forward networks over that of the block.
        bias: whether convolutions have biases.
        norm: `WithBias`, or `BiasFree` norms that neither centre nor shift.
    """

    window_size: int = 8
    overlap_ratio: float = 0.5
    spatial_dim_head: int = 16
    ffn_expansion_factor: float = 2.66
    bias: bool = False
    norm: Literal["WithBias", "BiasFree"] = "WithBias"

    @property
    def halo(self) -> int:
        """Pixels around a window that are keys too."""
        return int(self.window_size * self.overlap_ratio) // 2


class ScaleNorm(nn.Module):
    """Division by the standard deviation over the last dimension, without centring; parameter `weight`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        return x * torch.rsqrt(x.var(-1, keepdim=True, correction=0) + 1e-5) * self.weight


class ChannelNorm(nn.Module):
    """A norm over the channels of each pixel; parameters `body.weight` and `body.bias`."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim) if kind == "WithBias" else ScaleNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedFeedForward(nn.Module):
    """Restormer's gated feed-forward network: one half of the channels, through GELU, weighs the other."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class Fusion(nn.Module):
    """How much the spatial branch counts against the channel branch: one weight a channel, or one a pixel.

    Args:
        dim: channels C.
        per_pixel: one weight a pixel (published as `channel_fusion`, for it averages over channels).
    """

    def __init__(self, dim: int, per_pixel: bool) -> None:
        super().__init__()
        self.averaged = (1,) if per_pixel else (2, 3)
        self.fusion = nn.Sequential(
            nn.Conv2d(2 * dim, dim, 1, bias=False), nn.GELU(), nn.Conv2d(dim, dim, 1, bias=False)
        )

    def forward(self, spatial: Tensor, channel: Tensor) -> Tensor:
        """Two maps (B, C, H, W) to weights (B, C, 1, 1) or (B, 1, H, W) in (0, 1)."""
        return self.fusion(torch.cat((spatial, channel), dim=1)).mean(self.averaged, keepdim=True).sigmoid()


class STAF(nn.Module):
    """A block of ACFormer.

    Args:
        dim: channels C.
        channel_heads: heads of channel attention.
        spatial_heads: heads of spatial attention.
        per_pixel: see `Fusion`.
        query_kernel: kernel of the high pass of both attentions' queries; 0: none.
        settings: what the network's blocks share.
    """

    def __init__(
        self,
        dim: int,
        channel_heads: int,
        spatial_heads: int,
        *,
        per_pixel: bool,
        query_kernel: int,
        settings: BlockSettings,
    ) -> None:
        super().__init__()
        s = settings
        self.spatial_attn = OverlappingAttention(
            dim, spatial_heads, s.spatial_dim_head, s.window_size, s.halo, query_kernel, s.bias
        )
        self.channel_attn = ChannelAttention(dim, channel_heads, query_kernel, s.bias)
        self.norm1, self.norm2 = ChannelNorm(dim, s.norm), ChannelNorm(dim, s.norm)
        self.norm3, self.norm4 = ChannelNorm(dim, s.norm), ChannelNorm(dim, s.norm)
        self.channel_ffn = GatedFeedForward(dim, s.ffn_expansion_factor, s.bias)
        self.spatial_ffn = GatedFeedForward(dim, s.ffn_expansion_factor, s.bias)
        self.fusion = Fusion(dim, per_pixel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides multiples of the window, to the same shape."""
        spatial = x + self.spatial_attn(self.norm1(x))
        spatial = spatial + self.spatial_ffn(self.norm2(spatial))
        channel = x + self.channel_attn(self.norm3(x))
        channel = channel + self.channel_ffn(self.norm4(channel))
        weight = self.fusion(spatial, channel)
        return weight * spatial + (1 - weight) * channel
