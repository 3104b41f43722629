"""The global block of MedViTV2 (GFP): attention to pooled tokens, convolutions, Kolmogorov-Arnold layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath
from opsin.medical.classification.models.medvitv2.kan import FasterKAN
from opsin.medical.classification.models.medvitv2.layers import (
    Layout,
    LocalityFeedForward,
    as_map,
    as_tokens,
    patch_embed,
)


def nearest_multiple(width: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `width`, halves up; one more if that would lose over a tenth."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


class PooledKeyAttention(nn.Module):
    """E-MHSA: attention whose keys and values are means of consecutive tokens.

    Args:
        dim: channels C.
        head_dim: channels of a head.
        pooling: a key is the mean of pooling^2 tokens, in raster order; what remains at the end is left out.
        out_dim: channels of what comes out; C if not given.
    """

    def __init__(self, dim: int, head_dim: int, pooling: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.heads, self.tokens_a_key = dim // head_dim, pooling**2
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, out_dim or dim)
        if pooling > 1:
            self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, L, out_dim)."""
        pooled = x
        if self.tokens_a_key > 1:
            pooled = self.norm(F.avg_pool1d(x.transpose(1, 2), self.tokens_a_key)).transpose(1, 2)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(pooled), self.v(pooled))
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ConvAttention(nn.Module):
    """MHCA: grouped convolution 3x3, BatchNorm, ReLU, projection.

    Args:
        dim: channels C.
        head_dim: channels of a group.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim // head_dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.projection = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.projection(F.relu(self.norm(self.group_conv3x3(x))))


class GlobalBlock(nn.Module):
    """Attention on most channels, convolutional attention on the rest, a Kolmogorov-Arnold network on all.

    Args:
        in_channels: channels of the map that comes in.
        out_channels: channels C of the block.
        stride: 1, or 2 to halve the map first.
        pooling: of the attention's keys.
        mlp_ratio: hidden channels of the network / C.
        head_dim: channels of a head.
        mix_ratio: share of C that attends.
        drop_path_rate: shared out to the branches.
        layout: see the module.

    Raises:
        UserError: if `out_channels` leaves none for the convolutional attention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        pooling: int = 1,
        mlp_ratio: int = 2,
        head_dim: int = 32,
        mix_ratio: float = 0.75,
        drop_path_rate: float = 0.0,
        layout: Layout = "published",
    ) -> None:
        super().__init__()
        attending = nearest_multiple(int(out_channels * mix_ratio), 32)
        if attending >= out_channels:
            raise UserError(
                f"a global block of MedViTV2 with {out_channels} channels has none for its convolutions",
                "give it 128 or more",
            )
        self.layout: Layout = layout
        self.patch_embed = patch_embed(in_channels, attending, stride)
        self.norm1 = nn.BatchNorm2d(attending)
        self.e_mhsa = PooledKeyAttention(attending, head_dim, pooling)
        self.mhsa_drop_path = DropPath(drop_path_rate * mix_ratio)
        self.projection = patch_embed(attending, out_channels - attending, 1)
        self.mhca = ConvAttention(out_channels - attending, head_dim)
        self.mhca_drop_path = DropPath(drop_path_rate * (1 - mix_ratio))
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv = LocalityFeedForward(out_channels, 3, mlp_ratio).requires_grad_(False)  # never used
        self.kan = FasterKAN([out_channels, out_channels * mlp_ratio, out_channels])
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, H / stride, W / stride)."""
        x = self.patch_embed(x)
        attended = self.e_mhsa(self.norm1(x).flatten(2).transpose(1, 2))
        x = x + self.mhsa_drop_path(attended.transpose(1, 2).reshape(x.shape))
        y = self.projection(x)
        y = y + self.mhca_drop_path(self.mhca(y))
        x = torch.cat([x, y], 1)
        mixed = self.kan(as_tokens(self.norm2(x), self.layout))
        return x + self.drop_path(as_map(mixed, self.layout))
