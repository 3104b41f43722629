"""Four strides from the maps of a plain backbone, which all have one (BEiT's and ViT-Adapter's baseline).

Each map is resampled by itself; there is no exchange between levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

FACTORS = {8: (0.5, 1.0, 2.0, 4.0), 16: (0.25, 0.5, 1.0, 2.0)}


def rescale(channels: int, factor: float) -> nn.Module:
    """The layers that multiply a map's stride by `factor`: 0.25, 0.5, 1, 2 or 4."""
    if factor == 0.25:
        first, second = (nn.ConvTranspose2d(channels, channels, 2, stride=2) for _ in range(2))
        return nn.Sequential(first, nn.BatchNorm2d(channels), nn.GELU(), second)
    if factor == 0.5:
        return nn.Sequential(nn.ConvTranspose2d(channels, channels, 2, stride=2))
    return nn.Identity() if factor == 1 else nn.MaxPool2d(int(factor), int(factor))


class PlainPyramid(nn.Module):
    """Up to four maps (N, C, H, W) of stride 16 (or 8) to strides 4, 8, 16, 32; parameters `fpn1` … `fpn4`.

    Args:
        channels: channels C of every map.
        stride: pixels between patches, which decides how the levels are resampled: 8 or 16 (others are taken
            for the nearer of the two, and the strides, which are kept in `strides`, follow).
        levels: how many of the four levels are made, finest first.
    """

    def __init__(self, channels: int, stride: int = 16, levels: int = 4) -> None:
        super().__init__()
        factors = FACTORS[8 if stride <= 11 else 16][:levels]
        for level, factor in enumerate(factors, 1):
            self.add_module(f"fpn{level}", rescale(channels, factor))
        self.strides = tuple(round(stride * factor) for factor in factors)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One map a level, or a single one for all levels, to the levels, finest first."""
        levels = list(self.children())
        maps = list(maps) * len(levels) if len(maps) == 1 else maps
        return tuple(level(x) for level, x in zip(levels, maps, strict=True))
