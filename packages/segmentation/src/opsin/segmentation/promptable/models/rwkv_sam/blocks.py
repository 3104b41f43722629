"""RWKV blocks on the tokens of an image, as Vision-RWKV has them (arXiv 2403.02308).

Letters: B images, T tokens of a grid (H, W) row by row, C channels.

What a naive reading gets wrong: decay and first weight are divided by the number of tokens T of the image at
hand, so that a block adapts to its resolution; of the four shifted quarters the first looks left.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath
from opsin.core.ops.wkv import bi_wkv

Grid = tuple[int, int]


def q_shift(x: Tensor, grid: Grid) -> Tensor:
    """Each quarter of the channels from another neighbour: left, right, above, below; zero outside.

    Args:
        x: tokens (B, T, C) of `grid`. Channels beyond four times floor(C / 4) keep their values.
        grid: rows and columns.
    """
    quarter = x.shape[2] // 4
    left, right, above, below, rest = x.unflatten(1, grid).split(
        (quarter, quarter, quarter, quarter, x.shape[2] - 4 * quarter), dim=3
    )
    shifted = (
        F.pad(left, (0, 0, 1, -1)),
        F.pad(right, (0, 0, -1, 1)),
        F.pad(above, (0, 0, 0, 0, 1, -1)),
        F.pad(below, (0, 0, 0, 0, -1, 1)),
        rest,
    )
    return torch.cat(shifted, 3).flatten(1, 2)


def mix(x: Tensor, shifted: Tensor, share: Tensor) -> Tensor:
    """`share` (1, 1, C) of the tokens, the rest of their neighbours."""
    return torch.lerp(shifted, x, share.to(x.dtype))


class SpatialMix(nn.Module):
    """Tokens mixed over the whole image by the bidirectional WKV, in linear time.

    Args:
        channels: C.
        layer: index of the block, on which the initial values depend.
        layers: blocks of the network.
    """

    def __init__(self, channels: int, layer: int, layers: int) -> None:
        super().__init__()
        depth, height = layer / max(1, layers - 1), 1 - layer / layers
        channel = torch.arange(channels)
        rank = channel / channels
        decay = -5 + 8 * (channel / max(1, channels - 1)) ** (0.7 + 1.3 * depth)
        first = math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1)
        self.spatial_decay = nn.Parameter(decay)
        self.spatial_first = nn.Parameter(first)
        self.spatial_mix_k = nn.Parameter((rank**height)[None, None])
        self.spatial_mix_v = nn.Parameter((rank**height + 0.3 * depth)[None, None])
        self.spatial_mix_r = nn.Parameter((rank ** (height / 2))[None, None])
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C), tokens of `grid`, to the same shape."""
        shifted = q_shift(x, grid)
        k = self.key(mix(x, shifted, self.spatial_mix_k))
        v = self.value(mix(x, shifted, self.spatial_mix_v))
        r = self.receptance(mix(x, shifted, self.spatial_mix_r)).sigmoid()
        tokens = x.shape[1]
        mixed = bi_wkv(self.spatial_decay.float() / tokens, self.spatial_first.float() / tokens, k, v)
        return self.output(r * mixed)


class ChannelMix(nn.Module):
    """RWKV's perceptron: a squared ReLU, gated by the token and its neighbours.

    Args:
        channels: C.
        hidden: channels between.
        layer: index of the block, on which the initial values depend.
        layers: blocks of the network.
    """

    def __init__(self, channels: int, hidden: int, layer: int, layers: int) -> None:
        super().__init__()
        share = ((torch.arange(channels) / channels) ** (1 - layer / layers))[None, None]
        self.spatial_mix_k = nn.Parameter(share.clone())
        self.spatial_mix_r = nn.Parameter(share.clone())
        self.key = nn.Linear(channels, hidden, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C), tokens of `grid`, to the same shape."""
        shifted = q_shift(x, grid)
        k = self.key(mix(x, shifted, self.spatial_mix_k)).relu().square()
        r = self.receptance(mix(x, shifted, self.spatial_mix_r)).sigmoid()
        return r * self.value(k)


class RWKVBlock(nn.Module):
    """Spatial and channel mix, each normed before, scaled by channel after, and residual.

    Args:
        channels: C.
        mlp_ratio: hidden channels of the channel mix in units of C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        layer: index of the block.
        layers: blocks of the network.
    """

    def __init__(
        self, channels: int, *, mlp_ratio: float, drop_path_rate: float = 0.0, layer: int = 0, layers: int = 1
    ) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-2))
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = SpatialMix(channels, layer, layers)
        self.mlp = ChannelMix(channels, int(mlp_ratio * channels), layer, layers)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C), tokens of `grid`, to the same shape."""
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x), grid))
