"""Multi-scale self-guided attention for medical image segmentation (arXiv 1906.02849, IEEE JBHI 2020).

The authors' code, sinAshish/Multi-Scale-Attention (class `DAF_stack`), has no licence file and no published
weights. Grey slice (N, 1, H, W) in [0, 1] to logits (N, classes, H, W). Four scales of a ResNeXt-101, all
brought to H/4, are segmented twice: at the first level each scale's attention is guided by a semantic
autoencoder; at the second the attended features go through the same again.

What a naive reading gets wrong: the numbers in the names run both ways: `pam`, `cam`, `down` and `predict`
are numbered by scale (1 the finest), `conv_sem` and `conv8` from the deepest on; the autoencoder of a level
is shared by its four scales, deepest first, so it normalises with four batches' statistics in one training
step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.models import register_models
from opsin.core.published import Tensors
from opsin.medical.segmentation.models.multi_scale_attention.attention import (
    REDUCTION,
    AttentionLayer,
    ChannelAttention,
    MultiConv,
    PositionAttention,
    SemanticModule,
    conv_norm_prelu,
)
from opsin.medical.segmentation.models.multi_scale_attention.resnext import ResNeXt
from opsin.registry import MODELS

SCALES = (4, 3, 2, 1)  # deepest first, the order in which the autoencoders see them
STRIDE = 32
UNUSED = re.compile(r"^(conv[67]_|attention\d|refine\d)")


@dataclass
class GuidedOutput:
    """What training needs; lists of scales run from the finest, 1, to the deepest, 4.

    Attributes:
        predictions: eight logits (N, classes, H, W): of the first level's scales, then the second's.
        codes: pairs of one scale's codes at the first and the second level.
        reconstructions: eight pairs of an autoencoder's input and what it made of it.
    """

    predictions: list[Tensor]
    codes: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    reconstructions: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@MODELS.register_module()
class MultiScaleAttention(BaseModule):
    """The published network, with the published names.

    Args:
        num_classes: channels of the logits, the background among them.
        in_channels: channels of the slice.
        channels: channels of the guided attention, at least 8.
        depths: blocks of the ResNeXt's stages.
        groups: its groups.
        width_per_group: its channels a group.
        stem_channels: its stem's channels.
        unused_layers: whether to hold the layers that the authors' network has and never runs, which count
            among its published parameters and stand in its checkpoints. Without them the network is the same;
            in several processes they would want `find_unused_parameters`.
        init_cfg: OpenMMLab's weight initialisation.

    Raises:
        UserError: for fewer than 8 channels.
    """

    def __init__(
        self,
        num_classes: int = 5,
        *,
        in_channels: int = 1,
        channels: int = 64,
        depths: Sequence[int] = (3, 4, 23, 3),
        groups: int = 32,
        width_per_group: int = 8,
        stem_channels: int = 64,
        unused_layers: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if channels < REDUCTION:
            raise UserError(f"MultiScaleAttention needs at least {REDUCTION} channels, not {channels}")
        self.num_classes, self.in_channels, self.unused_layers = num_classes, in_channels, unused_layers
        self.resnext = ResNeXt(in_channels, depths, groups, width_per_group, stem_channels)
        self.fuse1 = MultiConv(len(SCALES) * channels, channels)
        for level in (1, 2):
            self.add_module(f"semanticModule_{level}_1", SemanticModule(2 * channels))
        for scale in SCALES:
            self._add_scale(scale, channels)
        if unused_layers:
            self._add_unused(channels)
        self.apply(_init)

    def _add_scale(self, scale: int, channels: int) -> None:
        down = nn.Sequential(*conv_norm_prelu(self.resnext.channels[scale - 1], channels, 1))
        self.add_module(f"down{scale}", down)
        for level, suffix in ((1, ""), (2, "_2")):
            position = AttentionLayer(channels, PositionAttention(channels))
            self.add_module(f"pam_attention_{level}_{scale}", position)
            self.add_module(f"cam_attention_{level}_{scale}", AttentionLayer(channels, ChannelAttention()))
            self.add_module(f"conv_sem_{level}_{5 - scale}", nn.Conv2d(2 * channels, channels, 3, padding=1))
            self.add_module(_conv8(level, scale), nn.Conv2d(channels, channels, 1))
            self.add_module(f"predict{scale}{suffix}", nn.Conv2d(channels, self.num_classes, 1))

    def _add_unused(self, channels: int) -> None:
        for scale in SCALES:
            for kind in (6, 7):
                layers = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, channels, 1))
                self.add_module(f"conv{kind}_{scale}", layers)
            self.add_module(f"attention{scale}", MultiConv(2 * channels, channels, softmax=True))
            self.add_module(f"refine{scale}", MultiConv(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor | GuidedOutput:
        """(N, C, H, W) in [0, 1] to logits (N, classes, H, W), while training to a `GuidedOutput`.

        Sides that are no multiple of 32 are extended by their border pixels for the while.

        Raises:
            UserError: for another number of channels.
        """
        if x.shape[1] != self.in_channels:
            raise UserError(f"this network takes slices of {self.in_channels} channels, got {x.shape[1]}")
        size = x.shape[2:]
        if size[0] % STRIDE or size[1] % STRIDE:
            x = F.pad(x, (0, -size[1] % STRIDE, 0, -size[0] % STRIDE), mode="replicate")
        down = self._pyramid(x)
        fused = self.fuse1(torch.cat([down[scale] for scale in SCALES], 1))
        first = self._level(1, down, dict.fromkeys(SCALES, fused))
        second = self._level(2, down, {scale: first[scale].refined * fused for scale in SCALES})
        finest_first = SCALES[::-1]
        final = [self._logits(f"predict{s}_2", second[s].refined, x, size) for s in finest_first]
        if not self.training:
            return torch.stack(final).mean(0)
        early = [self._logits(f"predict{s}", down[s], x, size) for s in finest_first]
        return GuidedOutput(
            early + final,
            [(first[s].code, second[s].code) for s in finest_first],
            [(level[s].given, level[s].decoded) for level in (first, second) for s in finest_first],
        )

    def _pyramid(self, x: Tensor) -> dict[int, Tensor]:
        """The four scales as maps (N, C, H/4, W/4)."""
        maps = self.resnext(x)
        size = maps[0].shape[2:]
        down = {scale: self.get_submodule(f"down{scale}")(maps[scale - 1]) for scale in SCALES}
        return {s: d if s == 1 else F.interpolate(d, size=size, mode="bilinear") for s, d in down.items()}

    def _level(self, level: int, down: dict[int, Tensor], guide: dict[int, Tensor]) -> dict[int, Guided]:
        """One level of guided attention over all scales."""
        found = {}
        for scale in SCALES:
            given = torch.cat((down[scale], guide[scale]), 1)
            code, decoded = self.get_submodule(f"semanticModule_{level}_1")(given)
            attended = self.get_submodule(f"cam_attention_{level}_{scale}")(given)
            attended = attended + self.get_submodule(f"pam_attention_{level}_{scale}")(given)
            semantic = self.get_submodule(f"conv_sem_{level}_{5 - scale}")(decoded)
            refined = self.get_submodule(_conv8(level, scale))(attended * semantic)
            found[scale] = Guided(given, code, decoded, refined)
        return found

    def _logits(self, name: str, features: Tensor, x: Tensor, size: torch.Size) -> Tensor:
        logits = F.interpolate(self.get_submodule(name)(features), size=x.shape[2:], mode="bilinear")
        return logits[..., : size[0], : size[1]]

    def from_published(self, tensors: Tensors) -> Tensors:
        """The published tensors; without `unused_layers` those of the layers that never run are dropped."""
        if self.unused_layers:
            return tensors
        return {name: tensor for name, tensor in tensors.items() if not UNUSED.match(name)}


@dataclass
class Guided:
    """One scale of one level: the autoencoder's input, code and reconstruction, and the attended features."""

    given: Tensor
    code: Tensor
    decoded: Tensor
    refined: Tensor


def _conv8(level: int, scale: int) -> str:
    return f"conv8_{10 * (level - 1) + 5 - scale}"


def _init(module: nn.Module) -> None:
    """Xavier's normal weights of convolutions, batch norms of N(1, 0.02); biases stay PyTorch's."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


register_models("multi-scale-attention", MultiScaleAttention, {"multi_scale_attention": {}})
