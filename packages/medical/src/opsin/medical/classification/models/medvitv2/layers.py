"""What the blocks of MedViTV2 share: patch embeddings, the two readings of a map, the feed-forward."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Layout = Literal["published", "clean"]


class ConvNormReLU(nn.Module):
    """Convolution 3x3 without bias, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return F.relu(self.norm(self.conv(x)))


class PatchEmbed(nn.Module):
    """Brings a map to another width, and at stride 2 to half the size, odd sides rounded up."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return self.norm(self.conv(self.pool(x)))


def patch_embed(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A `PatchEmbed` where the map changes, nothing where it does not."""
    same = stride == 1 and in_channels == out_channels
    return nn.Identity() if same else PatchEmbed(in_channels, out_channels, stride)


def as_tokens(x: Tensor, layout: Layout) -> Tensor:
    """A map (N, C, H, W) as (N, H, W, C), permuted or re-read."""
    batch, channels, height, width = x.shape
    if layout == "clean":
        return x.permute(0, 2, 3, 1)
    return x.reshape(batch, height, width, channels)


def as_map(tokens: Tensor, layout: Layout) -> Tensor:
    """The way back from `as_tokens`."""
    batch, height, width, channels = tokens.shape
    if layout == "clean":
        return tokens.permute(0, 3, 1, 2)
    return tokens.reshape(batch, channels, height, width)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds; the gate is relu6(x + 3) / 6."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class LocalityFeedForward(nn.Module):
    """Inverted residual with squeeze and excitation, its skip included.

    Args:
        dim: channels C.
        kernel_size: of the depth-wise convolution.
        ratio: hidden channels / C.
        squeezed: channels that the excitation squeezes to; `ratio` of them if not given.
    """

    def __init__(self, dim: int, kernel_size: int, ratio: int, squeezed: int | None = None) -> None:
        super().__init__()
        hidden = dim * ratio
        self.conv = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            SqueezeExcite(hidden, squeezed or ratio),
            nn.Conv2d(hidden, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.conv(x)
