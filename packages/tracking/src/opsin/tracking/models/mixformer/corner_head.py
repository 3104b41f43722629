"""Corner heads: a box as the expected places of its top-left and its bottom-right corner.

Each corner has a branch of convolutions that ends in one map; softmax over the map's cells gives the chance
of each, and the expectation is over cell index times stride, without half a cell: the largest coordinate is
1 - stride / side of the crop. The pyramid head (`CORNER_UP`) has maps of stride 4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.tracking.models.mixformer.frozen_batch_norm import FrozenBatchNorm2d

CORNERS = ("tl", "br")


def _conv(in_channels: int, channels: int, freeze_bn: bool) -> nn.Sequential:
    norm = FrozenBatchNorm2d(channels) if freeze_bn else nn.BatchNorm2d(channels)
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), norm, nn.ReLU(inplace=True))


def _chain(widths: list[int], freeze_bn: bool) -> nn.Sequential:
    return nn.Sequential(*(_conv(a, b, freeze_bn) for a, b in pairwise(widths)))


@MODELS.register_module()
class CornerHead(nn.Module):
    """The head of MixFormer; maps have the features' stride.

    Args:
        in_channels: C of the search features.
        channels: width of the first convolution; each of the next three has half of the one before.
        freeze_bn: norms are fixed, as in the training of the score head and in every online checkpoint.
    """

    def __init__(self, in_channels: int, channels: int = 384, *, freeze_bn: bool = False) -> None:
        super().__init__()
        widths = [in_channels, *(channels >> i for i in range(4))]
        for corner in CORNERS:
            for i in range(4):
                self.add_module(f"conv{i + 1}_{corner}", _conv(widths[i], widths[i + 1], freeze_bn))
            self.add_module(f"conv5_{corner}", nn.Conv2d(widths[4], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Search features (B, C, H, W) to boxes (B, 4): x1, y1, x2, y2 over the crop's sides."""
        return torch.cat([expected_place(m) for m in self.corner_maps(x).unbind(1)], dim=1)

    def corner_maps(self, x: Tensor) -> Tensor:
        """Logits of both corners, top-left first, (B, 2, h, w)."""
        return torch.cat([self.corner_map(x, corner) for corner in CORNERS], dim=1)

    def corner_map(self, x: Tensor, corner: str) -> Tensor:
        """Logits (B, 1, h, w) of one corner, `tl` or `br`."""
        for i in range(1, 6):
            x = self.get_submodule(f"conv{i}_{corner}")(x)
        return x


@MODELS.register_module()
class PyramidCornerHead(CornerHead):
    """The head of MixViT: features are brought to four times their resolution on the way; arguments as above.

    Up-sampling repeats cells. The last convolution of each side branch ends in a ReLU too.
    """

    def __init__(self, in_channels: int, channels: int = 384, *, freeze_bn: bool = False) -> None:
        super().__init__(in_channels, channels, freeze_bn=freeze_bn)
        half, quarter, eighth = (channels >> i for i in (1, 2, 3))
        for corner in CORNERS:
            self.add_module(f"adjust1_{corner}", _conv(in_channels, half, freeze_bn))
            self.add_module(f"adjust2_{corner}", _conv(in_channels, quarter, freeze_bn))
            self.add_module(f"adjust3_{corner}", _chain([half, quarter, eighth, 1], freeze_bn))
            self.add_module(f"adjust4_{corner}", _chain([quarter, eighth, 1], freeze_bn))

    def corner_map(self, x: Tensor, corner: str) -> Tensor:
        """Logits (B, 1, 4 H, 4 W) of one corner."""

        def layer(name: str, maps: Tensor) -> Tensor:
            return self.get_submodule(f"{name}_{corner}")(maps)

        second = layer("conv2", layer("conv1", x))
        third = layer("conv3", _repeat(layer("adjust1", x), 2) + _repeat(second, 2))
        fourth = layer("conv4", _repeat(layer("adjust2", x), 4) + _repeat(third, 2))
        sides = _repeat(layer("adjust3", second), 4) + _repeat(layer("adjust4", third), 2)
        return layer("conv5", fourth) + sides


def _repeat(maps: Tensor, factor: int) -> Tensor:
    return F.interpolate(maps, scale_factor=float(factor), mode="nearest")


def expected_place(logits: Tensor) -> Tensor:
    """Expected x and y of logits (B, H, W), in map widths and heights: (B, 2). Computed in float32."""
    height, width = logits.shape[1:]
    chance = logits.float().flatten(1).softmax(1).unflatten(1, (height, width))
    columns = torch.arange(width, device=logits.device, dtype=chance.dtype) / width
    rows = torch.arange(height, device=logits.device, dtype=chance.dtype) / height
    return torch.stack(((chance.sum(1) * columns).sum(1), (chance.sum(2) * rows).sum(1)), dim=1)
