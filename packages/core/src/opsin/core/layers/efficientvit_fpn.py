"""The neck of EfficientViT's detectors (arXiv 2305.07027; code microsoft/Cream, MIT), which SHViT's use too.

A feature pyramid network for backbones that begin at stride 16: transposed convolutions on the finished
finest lateral add the larger levels that detectors expect. To maps of strides 16, 32 and 64 RetinaNet adds
one larger and one coarser level (strides 8 to 128), Mask R-CNN two larger ones (strides 4 to 64).

What a naive reading gets wrong: the transposed convolutions follow each other (the second doubles what the
first gives, not a 3x3 output), and `extra_fpn_convs` counts from the largest map, `extra_trans_convs` from
the first one applied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.registry import MODELS

SOURCES = ("on_input", "on_lateral", "on_output")


def _named(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """The convolution under the name `conv` that OpenMMLab's files have, Xavier uniform, its bias zero."""
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv))


@MODELS.register_module()
class EfficientViTFPN(nn.Module):
    """Feature pyramid with larger levels by transposed convolutions and coarser ones by strided ones.

    Convolutions have biases, no norm and no activation. Without larger levels it is a plain pyramid.

    Args:
        in_channels: channels of each map of the backbone, finest first.
        out_channels: channels C of every level.
        num_outs: levels in all.
        start_level: the first map that is used.
        end_level: the map after the last one used; -1 uses all.
        add_extra_convs: how levels coarser than the last map are made: False takes every second pixel of the
            level before; 'on_input' (or True) convolves the backbone's last map with stride 2, 'on_lateral'
            its lateral and 'on_output' its level, and further levels the one before.
        relu_before_extra_convs: a ReLU before the second and further of these convolutions.
        num_extra_trans_convs: levels larger than the first map, each twice the one before.

    Raises:
        UserError: if `num_outs` is too small for the maps and the larger levels, or for another
            `add_extra_convs`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        *,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | Literal["on_input", "on_lateral", "on_output"] = False,
        relu_before_extra_convs: bool = False,
        num_extra_trans_convs: int = 0,
    ) -> None:
        super().__init__()
        self.used = slice(start_level, len(in_channels) if end_level == -1 else end_level)
        widths = list(in_channels[self.used])
        self.coarser = num_outs - len(widths) - num_extra_trans_convs
        if self.coarser < 0:
            raise UserError(
                f"num_outs={num_outs} is too few for {len(widths)} maps",
                f"with {num_extra_trans_convs} larger levels it is at least {num_outs - self.coarser}",
            )
        self.source = "on_input" if add_extra_convs is True else add_extra_convs
        if self.source and self.source not in SOURCES:
            raise unknown("add_extra_convs", str(add_extra_convs), SOURCES)
        self.relu_before_extra_convs = relu_before_extra_convs

        def level_convs(count: int) -> list[nn.Sequential]:
            return [_named(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in range(count)]

        coarser_inputs = [widths[-1] if self.source == "on_input" else out_channels]
        coarser_inputs += [out_channels] * (self.coarser - 1)
        coarser_convs = [
            _named(nn.Conv2d(width, out_channels, 3, stride=2, padding=1))
            for width in coarser_inputs[: self.coarser if self.source else 0]
        ]
        self.lateral_convs = nn.ModuleList(_named(nn.Conv2d(width, out_channels, 1)) for width in widths)
        self.fpn_convs = nn.ModuleList([*level_convs(len(widths)), *coarser_convs])
        self.extra_trans_convs = nn.ModuleList(
            _named(nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2))
            for _ in range(num_extra_trans_convs)
        )
        self.extra_fpn_convs = nn.ModuleList(level_convs(num_extra_trans_convs))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, in_channels[i], H_i, W_i) to `num_outs` levels (N, C, H, W), the largest first."""
        maps = maps[self.used]
        laterals = self._laterals(maps)
        larger = [laterals[0]]
        for double in self.extra_trans_convs:
            larger.insert(0, double(larger[0]))
        levels = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        levels += self._coarser_levels(maps[-1], laterals[-1], levels[-1])
        return (*(conv(x) for conv, x in zip(self.extra_fpn_convs, larger, strict=False)), *levels)

    def _laterals(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """1x1 convolutions, each plus the one above it, enlarged to its size by nearest neighbours."""
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[2:]
            laterals[index - 1] = laterals[index - 1] + F.interpolate(laterals[index], size=size)
        return laterals

    def _coarser_levels(self, last_map: Tensor, last_lateral: Tensor, last_level: Tensor) -> list[Tensor]:
        if not self.source:
            every_second = [last_level]
            for _ in range(self.coarser):
                every_second.append(every_second[-1][:, :, ::2, ::2])
            return every_second[1:]
        x = dict(zip(SOURCES, (last_map, last_lateral, last_level), strict=True))[self.source]
        levels: list[Tensor] = []
        for conv in self.fpn_convs[len(self.lateral_convs) :]:
            x = conv(F.relu(x) if levels and self.relu_before_extra_convs else x)
            levels.append(x)
        return levels
