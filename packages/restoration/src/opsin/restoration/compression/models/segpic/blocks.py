"""The blocks of SegPIC's image transforms: resampling with a scale affine layer, gated window attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.shifted_windows import attend_in_windows
from opsin.core.layers.window_attention import WindowAttention
from opsin.restoration.compression.models.segpic.gdn import GDN


class ScaleAffine(nn.Sequential):
    """Factors and offsets, each (N, C, H, W), that a map (N, C, H, W) gives for its own places."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, 2 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The map, scaled and moved by what it says itself."""
        scale, bias = super().forward(x).chunk(2, dim=1)
        return x * (1 + scale) + bias


class DownBlock(nn.Module):
    """A strided convolution, GDN, and then the scale affine layer: (N, in, H, W) to (N, out, H/2, W/2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 5,
        stride: int = 2,
        groups: int = 1,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        self.conv_groups = nn.Sequential(conv, GDN(out_channels))
        self.scales_bias = ScaleAffine(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The smaller map."""
        x = self.conv_groups(x)
        return self.scales_bias(x)


class UpBlock(nn.Module):
    """The scale affine layer, then a transposed convolution and GDN: (N, in, H, W) to (N, out, 2H, 2W).

    The normalisation divides here too, as in the encoder.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 5,
        stride: int = 2,
        groups: int = 1,
        norm: type[GDN] = GDN,
    ) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            output_padding=stride - 1,
            groups=groups,
        )
        self.conv_groups = nn.Sequential(conv, norm(out_channels))
        self.scales_bias = ScaleAffine(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The larger map."""
        out: Tensor = self.conv_groups(self.scales_bias(x))
        return out


class ResidualUnit(nn.Module):
    """A bottleneck of half the channels with a skip; GELU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.GELU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(half, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return F.gelu(x + self.conv(x))


class ShiftedWindowAttention(nn.Module):
    """x plus attention in shifted windows, without a norm."""

    def __init__(self, channels: int, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        self.window, self.shift = (window_size, window_size), (shift_size, shift_size)
        self.attn = WindowAttention(channels, num_heads, self.window)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        attended = attend_in_windows(self.attn, x.permute(0, 2, 3, 1), self.window, self.shift)
        return x + attended.permute(0, 3, 1, 2)


class AttentionGate(nn.Module):
    """x + a(x) · sigmoid(b(x)): residual units, gated by window attention and residual units."""

    def __init__(
        self, channels: int, window_size: int, num_heads: int = 8, shift_size: int | None = None
    ) -> None:
        super().__init__()
        shift = window_size // 2 if shift_size is None else shift_size
        self.conv_a = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(
            ShiftedWindowAttention(channels, num_heads, window_size, shift),
            *(ResidualUnit(channels) for _ in range(3)),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.conv_a(x) * self.conv_b(x).sigmoid()
