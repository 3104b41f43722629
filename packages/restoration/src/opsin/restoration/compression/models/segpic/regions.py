"""Regions of a picture, and the transform that filters each with kernels of its own (RAT).

Regions come in two kinds with the same two methods: `pool` gives one code a region, `spread` puts the codes
back where their regions are. `MaskRegions` are segments of any shape, for training; `GridRegions` are the
cells of a regular grid, which a decoder knows without being told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY = 0.0005  # added to each region's number of pixels
SLOPE = 0.1


class Regions(Protocol):
    """What the codec asks of regions."""

    def pool(self, x: Tensor) -> Tensor:
        """One code a region: the mean of x (N, C, H, W) in it."""

    def spread(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """The codes, whatever their channels, where their regions are: (N, C, H, W) of `size` (H, W)."""

    def reduced(self, factor: int) -> Regions:
        """The same regions for maps whose sides are 1/`factor`."""


@dataclass(frozen=True)
class GridRegions:
    """The cells of a `grid` x `grid` partition; codes are (N, C, grid, grid)."""

    grid: int

    def pool(self, x: Tensor) -> Tensor:
        """Means over the cells."""
        return F.adaptive_avg_pool2d(x, self.grid)

    def spread(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """Nearest neighbour."""
        return F.interpolate(codes, size=size, mode="nearest")

    def reduced(self, factor: int) -> GridRegions:
        """A grid is the same at every size."""
        return self


class MaskRegions:
    """Segments given by region ids; codes are (regions of all pictures, C, 1, 1), picture by picture.

    A picture has the regions 0 to its largest id; one that no pixel has keeps an all-zero code.

    Args:
        ids: (N, H, W), integers from 0.
    """

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids.long()
        self.counts = [int(picture.max()) + 1 for picture in self.ids]
        starts = torch.tensor([0, *self.counts[:-1]]).cumsum(0).to(ids.device)
        self.rows = self.ids + starts[:, None, None]

    def pool(self, x: Tensor) -> Tensor:
        """Sums over pixels + 0.0005, as published."""
        rows, pixels = self.rows.flatten(), x.permute(0, 2, 3, 1).flatten(0, 2)
        sums = x.new_zeros(sum(self.counts), x.shape[1]).index_add(0, rows, pixels)
        area = torch.bincount(rows, minlength=len(sums)).to(x.dtype)
        return (sums / (area + EMPTY)[:, None])[:, :, None, None]

    def spread(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """Every pixel gets its region's code.

        Raises:
            ValueError: if `size` is not that of the ids.
        """
        if size != tuple(self.ids.shape[1:]):
            raise ValueError(f"regions of {tuple(self.ids.shape[1:])} pixels for a map of {size}")
        return codes[:, :, 0, 0][self.rows].permute(0, 3, 1, 2)

    def reduced(self, factor: int) -> MaskRegions:
        """The id of every `factor`-th pixel."""
        return MaskRegions(self.ids[:, ::factor, ::factor])


class RegionAdaptiveTransform(nn.Module):
    """Filters a map, per channel and place, with kernels made from the place and its region's code.

    Args:
        in_channels: channels of the map (N, in_channels, H, W); the result has the same shape.
        center_channels: channels of the codes.
        mid_channels: channels that are filtered; as many as the map has if None.
        kernel_size: side of the kernels.
    """

    def __init__(
        self,
        in_channels: int,
        center_channels: int,
        mid_channels: int | None = None,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        mid = mid_channels or in_channels
        self.kernel_size = kernel_size
        self.conv = nn.Sequential(nn.Conv2d(in_channels, mid, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(mid, mid, 1))
        self.k_sp_gen = nn.Sequential(
            nn.Conv2d(mid + center_channels, mid, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(mid, mid, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(mid, mid * kernel_size**2, 3, padding=1, groups=mid),
        )
        self.k_ch_gen = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(mid, mid, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(mid, mid, 1),
            nn.Sigmoid(),
        )
        self.conv_out = nn.Conv2d(mid, in_channels, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Map (N, C, H, W) and the codes of its places (N, center_channels, H, W) to (N, C, H, W)."""
        value = self.conv(x)
        kernels = self.k_sp_gen(torch.cat((value, codes), 1)).unflatten(1, (-1, self.kernel_size**2))
        filtered = self._filtered(value, kernels)
        out: Tensor = self.conv_out(filtered * self.k_ch_gen(filtered)) + x
        return out

    def _filtered(self, value: Tensor, kernels: Tensor) -> Tensor:
        """Sums over neighbourhoods tap by tap: all at once would take three times the memory."""
        height, width = value.shape[2:]
        around = F.pad(value, (self.kernel_size // 2,) * 4)
        total = torch.zeros_like(value)
        # unbound at once, since the gradient of each single index would be a map of all kernels
        for tap, kernel in enumerate(kernels.unbind(2)):
            row, column = divmod(tap, self.kernel_size)
            total = total + kernel * around[:, :, row : row + height, column : column + width]
        return total
