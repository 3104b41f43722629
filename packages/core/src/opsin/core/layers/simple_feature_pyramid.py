"""The simple feature pyramid of ViTDet (Exploring Plain Vision Transformer Backbones, arXiv 2203.16527).

A plain backbone's single map is resampled to several scales, each by its own small stack; there is no
top-down path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.registry import MODELS


class NormedConv(nn.Conv2d):
    """A convolution without bias and the LayerNorm over channels after it, `norm`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = LayerNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        return self.norm(super().forward(x))


@MODELS.register_module()
class SimpleFeaturePyramid(nn.Module):
    """A map (N, C, H, W) of stride 16 to maps of `out_channels` at strides 4, 8, 16, 32 and a pooled 64.

    A detector's neck: it takes a backbone's tuple and reads the last map. Levels are named `simfp_2` … by the
    logarithm of their stride.

    Args:
        in_channels: channels C of the map.
        out_channels: channels of every level.
        scales: which of 4, 2, 1 and 0.5 times the map's size, largest first.
        extra_levels: levels that max pooling adds after the last.
        stride: stride of the map, a power of two.

    Raises:
        UserError: for another scale.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        scales: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        extra_levels: int = 1,
        stride: int = 16,
    ) -> None:
        super().__init__()
        self.levels = [f"simfp_{int(stride / scale).bit_length() - 1}" for scale in scales]
        self.extra_levels = extra_levels
        for level, scale in zip(self.levels, scales, strict=True):
            resample, channels = _resample(in_channels, scale)
            convs = NormedConv(channels, out_channels, 1), NormedConv(out_channels, out_channels, 3)
            self.add_module(level, nn.Sequential(*resample, *convs))

    def forward(self, maps: Sequence[Tensor] | Tensor) -> tuple[Tensor, ...]:
        """A map (N, C, H, W), or maps of which the last is taken, to all levels, finest first."""
        x = maps if isinstance(maps, Tensor) else maps[-1]
        levels = [self.get_submodule(level)(x) for level in self.levels]
        for _ in range(self.extra_levels):
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)


def _resample(channels: int, scale: float) -> tuple[list[nn.Module], int]:
    """The layers that bring a map to `scale` times its size, and the channels that come out."""
    if scale == 4:
        up = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        again = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        return [up, LayerNorm2d(channels // 2), nn.GELU(), again], channels // 4
    if scale == 2:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)], channels // 2
    if scale == 1:
        return [], channels
    if scale == 0.5:
        return [nn.MaxPool2d(2, stride=2)], channels
    raise UserError(f"a simple feature pyramid has no scale {scale}", "use 4, 2, 1 or 0.5")
