"""The convolutions of RWKV-SAM's image encoder (arXiv 2406.19369): stem, inverted bottlenecks, halvings.

What a naive reading gets wrong: a block of stride 2 has a pooled shortcut even where the width stays.
"""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.layers.layer_norm import LayerNorm2d


class Stem(nn.Module):
    """Two 3x3 convolutions, the first of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm1 = LayerNorm2d(channels)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        return self.conv2(self.act(self.norm1(self.conv1(x))))


class PooledShortcut(nn.Module):
    """What a block of stride 2 adds its branch to: the mean of 3x3, and a 1x1 convolution to a new width."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.expand = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        return self.expand(self.pool(x))


class MBConv(nn.Module):
    """Inverted bottleneck of four times the width with a LayerNorm before it.

    Args:
        in_channels: channels in.
        channels: channels out; as many as in if `stride` is 1.
        stride: 1, or 2 to halve the map.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.shortcut = PooledShortcut(in_channels, channels) if stride == 2 else nn.Identity()
        self.pre_norm = LayerNorm2d(in_channels)
        self.conv1_1x1 = nn.Conv2d(in_channels, hidden, 1)
        self.conv2_kxk = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden)
        self.conv3_1x1 = nn.Conv2d(hidden, channels, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        y = self.act(self.conv1_1x1(self.pre_norm(x)))
        return self.shortcut(x) + self.conv3_1x1(self.act(self.conv2_kxk(y)))


class NormedHalving(nn.Module):
    """LayerNorm, then a 3x3 convolution of stride 2 to the width of the tokens."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(in_channels)
        self.proj = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        return self.proj(self.norm(x))


def conv_stage(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    """MBConv blocks, the first of which halves the map."""
    first = MBConv(in_channels, channels, stride=2)
    return nn.Sequential(first, *(MBConv(channels, channels, stride=1) for _ in range(depth - 1)))
