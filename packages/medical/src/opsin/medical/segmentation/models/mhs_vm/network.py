"""MHS-VM: Multi-Head Scanning in Parallel Subspaces for Vision Mamba (arXiv 2406.05992), and its baseline.

The authors' code, PixDeep/MHS-VM, is Apache-2.0, as is VM-UNet's. Picture (N, 3, H, W) or (N, 1, H, W) to
logits (N, classes, H, W): a U of state-space blocks, whose encoder works at strides 4, 8, 16 and 32.

What a naive reading gets wrong: the skip is the INPUT of an encoder level and is added before the decoder
level's expansion, so the last encoder level's output has none and the first level's input is not used; the
decoder's drop path rates fall from the first block to the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, FeatureInfo, Trunk
from opsin.core.backbones.settings import resolve_settings
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.stage import Stage
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.published import Tensors, fit
from opsin.medical.segmentation.models.mhs_vm.scan import EPS, VSSGate, VSSUnGated, without_twins
from opsin.medical.segmentation.models.mhs_vm.ss2d import SS2D
from opsin.registry import MODELS

PATCH = 4


@dataclass(frozen=True)
class MHSVMSettings:
    """What the network and its encoder share.

    Args:
        heads: heads of the scan; 0 for the baseline, VM-UNet.
        gated: whether the mixer has a gate.
        with_proj: whether a norm and a projection join the heads.
        gfu_t: threshold of the scan route attention: 0.5 for ISIC 2018, 0 for ISIC 2017.
        d_state: states a channel.
        widths: channels of the encoder's levels.
        depths: blocks of the encoder's levels.
        depths_decoder: blocks of the decoder's levels, the deepest first.
        in_channels: channels of the patch embedding; a picture of one channel is repeated to as many.
        drop_path_rate: the highest rate of encoder and decoder.
        dropout: dropout after each mixer.
    """

    heads: int = 4
    gated: bool = True
    with_proj: bool = True
    gfu_t: float = 0.5
    d_state: int = 16
    widths: Sequence[int] = (96, 192, 384, 768)
    depths: Sequence[int] = (2, 2, 2, 2)
    depths_decoder: Sequence[int] = (2, 2, 2, 1)
    in_channels: int = 3
    drop_path_rate: float = 0.2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.depths_decoder):
            raise UserError(
                f"widths {tuple(self.widths)}, depths {tuple(self.depths)} and depths_decoder "
                f"{tuple(self.depths_decoder)} of MHS-VM must have one entry for each level"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels that a cell of each level spans on a side."""
        return tuple(PATCH * 2**i for i in range(len(self.widths)))

    def mixer(self, dim: int) -> nn.Module:
        """The mixer of a block of `dim` channels."""
        if not self.heads:
            return SS2D(dim, d_state=self.d_state, dropout=self.dropout)
        kind = VSSGate if self.gated else VSSUnGated
        return kind(
            dim,
            self.heads,
            with_proj=self.with_proj,
            gfu_t=self.gfu_t,
            d_state=self.d_state,
            dropout=self.dropout,
        )


ARCHS = {
    "4h": MHSVMSettings(),
    "3h": MHSVMSettings(heads=3),
    "4h_deep": MHSVMSettings(depths=(2, 2, 9, 2), depths_decoder=(2, 9, 2, 2)),
    "vm_unet": MHSVMSettings(heads=0),
    "vm_unet_deep": MHSVMSettings(heads=0, depths=(2, 2, 9, 2), depths_decoder=(2, 9, 2, 2)),
    "tiny": MHSVMSettings(  # not published: of a hundredth of the cost, for trainings of a minute
        widths=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        depths_decoder=(1, 1, 1, 1),
        d_state=4,
        gfu_t=0.0,
        drop_path_rate=0.0,
    ),
}


class VSSBlock(nn.Module):
    """A residual branch: LayerNorm, mixer, drop path.

    Args:
        dim: channels.
        settings: see `MHSVMSettings`.
        drop_path_rate: chance of dropping the branch of a sample.
    """

    def __init__(self, dim: int, settings: MHSVMSettings, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=EPS)
        self.self_attention = settings.mixer(dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same shape."""
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class PatchExpand(nn.Module):
    """A linear layer whose channels become `factor` x `factor` cells, and a LayerNorm of each cell.

    Args:
        dim: channels C in.
        out_dim: channels C' of a cell.
        factor: how many times larger the sides become.
    """

    def __init__(self, dim: int, out_dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(dim, out_dim * factor**2, bias=False)
        self.norm = nn.LayerNorm(out_dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, factor h, factor w, C')."""
        cells = self.expand(x).unflatten(-1, (self.factor, self.factor, -1)).transpose(2, 3)
        return self.norm(cells.flatten(3, 4).flatten(1, 2))


class DecoderLevel(nn.Module):
    """An expansion (None in the deepest level) and the blocks after it."""

    def __init__(self, upsample: nn.Module | None, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.upsample = upsample
        self.blocks = nn.ModuleList(blocks)


class MHSVMEncoder(Trunk):
    """Patch embedding and encoder levels; what the network and the backbone share."""

    settings: MHSVMSettings
    patch_embed: PatchEmbedding
    layers: nn.ModuleList

    @property
    def levels(self) -> list[Stage]:
        """The encoder levels that are built."""
        return [layer for layer in self.layers if isinstance(layer, Stage)]

    def build(self, settings: MHSVMSettings, levels: int) -> None:
        """Makes patch embedding and the first `levels` levels; drop path rates are the whole network's."""
        self.settings = settings
        widths = settings.widths
        self.patch_embed = PatchEmbedding(settings.in_channels, widths[0], PATCH)
        rates = drop_path_rates(settings.drop_path_rate, settings.depths)
        self.layers = nn.ModuleList(
            Stage(
                (VSSBlock(widths[i], settings, rate) for rate in rates[i]),
                SwinMerging(widths[i], widths[i + 1]) if i + 1 < levels else None,
            )
            for i in range(levels)
        )

    def encode(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(N, C, H, W) to the levels' inputs and outputs, channels-last, outputs before their downsampling.

        Raises:
            UserError: for another number of channels than one or the network's.
        """
        channels = self.settings.in_channels
        if x.shape[1] not in (1, channels):
            raise UserError(
                f"MHS-VM takes pictures of 1 or {channels} channels, got {x.shape[1]}", "set in_channels"
            )
        x = self.patch_embed(x.expand(-1, channels, -1, -1))
        inputs, outputs = [], []
        for layer in self.levels:
            inputs.append(x)
            for block in layer.blocks:
                x = self.run(block, x)
            outputs.append(x)
            if layer.downsample is not None:
                x = layer.downsample(x)
        return inputs, outputs

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: the patch embedding; one for every encoder block; the decoder is the last."""
        depths = self.settings.depths
        name = name.removeprefix(prefix)
        found = re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name)
        last = sum(depths) + 1
        if found is None:
            return (0 if name.startswith("patch_embed.") else last), last + 1
        level = int(found[1])
        within = depths[level] - 1 if found[2] is None else int(found[2])
        return sum(depths[:level]) + within + 1, last + 1


@MODELS.register_module()
class MHSVM(MHSVMEncoder):
    """The published network, `VMUNet`; its tensors have the published names without `vmunet.`.

    Args:
        arch: `4h`, `3h`, `4h_deep`, `vm_unet`, `vm_unet_deep`, `tiny`, or a mapping of `MHSVMSettings`.
        num_classes: channels of the logits; 1 is a yes or no for each pixel, through a sigmoid.
        with_cp: see `Trunk`.
        init_cfg: see `Trunk`.
        settings: fields of `MHSVMSettings` to change.

    Raises:
        UserError: for an unknown arch or setting, or levels that do not fit together.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "4h",
        *,
        num_classes: int = 1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        chosen = resolve_settings("MHSVM", ARCHS, arch, settings)
        self.num_classes = num_classes
        self.build(chosen, len(chosen.widths))
        widths = list(chosen.widths)[::-1]
        rates = _falling_rates(chosen)
        self.layers_up = nn.ModuleList(
            DecoderLevel(
                PatchExpand(widths[i - 1], width, 2) if i else None,
                (VSSBlock(width, chosen, rate) for rate in rates[i]),
            )
            for i, width in enumerate(widths)
        )
        self.final_up = PatchExpand(widths[-1], widths[-1] // PATCH, PATCH)
        self.final_conv = nn.Conv2d(widths[-1] // PATCH, num_classes, 1)
        self.apply(init_linear)

    @property
    def levels_up(self) -> list[DecoderLevel]:
        """The decoder levels, the deepest first."""
        return [level for level in self.layers_up if isinstance(level, DecoderLevel)]

    def forward(self, x: Tensor) -> Tensor:
        """Picture (N, 1 or 3, H, W) to logits (N, classes, H, W).

        Sides that are no multiple of the deepest stride are extended by their border pixels for the while.
        """
        height, width = x.shape[2:]
        stride = self.settings.strides[-1]
        if height % stride or width % stride:
            x = F.pad(x, (0, -width % stride, 0, -height % stride), mode="replicate")
        inputs, outputs = self.encode(x)
        x = outputs[-1]
        # the deepest level has no skip, and the input of the first encoder level is not used
        for level, skip in zip(self.levels_up, [x, *inputs[:0:-1]], strict=True):
            if level.upsample is not None:
                x = level.upsample(x + skip)
            for block in level.blocks:
                x = self.run(block, x)
        logits = self.final_conv(self.final_up(x).permute(0, 3, 1, 2))
        return logits[..., :height, :width]

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """Tensors of the authors' files to those of this network."""
        return without_twins({name.removeprefix("vmunet."): tensor for name, tensor in tensors.items()})


@MODELS.register_module()
class MHSVMBackbone(MHSVMEncoder, Backbone):
    """The encoder alone, for other heads: the levels' maps before their downsampling, at strides 4 to 32.

    Args:
        arch: see `MHSVM`.
        out_indices: levels that give a map.
        frozen_stages: see `Backbone`.
        with_cp: see `Trunk`.
        init_cfg: see `Trunk`.
        settings: fields of `MHSVMSettings` to change.

    Raises:
        UserError: for an unknown arch or setting, or levels that are not there.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "4h",
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        chosen = resolve_settings("MHSVM", ARCHS, arch, settings)
        self.check_out_indices(len(chosen.widths))
        self.build(chosen, self.out_indices[-1] + 1)
        self.feature_info = tuple(FeatureInfo(chosen.widths[i], chosen.strides[i]) for i in self.out_indices)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 1 or 3, H, W) to the maps of `out_indices`, channels first."""
        _, outputs = self.encode(x)
        return tuple(outputs[i].permute(0, 3, 1, 2) for i in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or the blocks of level `stage` (from 1) and the merging before them."""
        if stage == 0:
            return [self.patch_embed]
        if stage > len(self.levels):
            return []
        merging = self.levels[stage - 2].downsample if stage > 1 else None
        return [m for m in (self.levels[stage - 1].blocks, merging) if m is not None]

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' files to those of the encoder; the decoder's are dropped."""
        unused = r"^(layers_up|final_up|final_conv|layers)\."
        return fit(self.state_dict(), MHSVM.from_published(tensors), unused=unused)


def _falling_rates(settings: MHSVMSettings) -> list[list[float]]:
    """The decoder's drop path rates: the first block has the highest."""
    rising = drop_path_rates(settings.drop_path_rate, list(settings.depths_decoder)[::-1])
    return [rates[::-1] for rates in rising[::-1]]


register_models(
    "mhs-vm",
    MHSVM,
    {
        "mhs_vm_4h": {"arch": "4h"},
        "mhs_vm_3h": {"arch": "3h"},
        "mhs_vm_4h_deep": {"arch": "4h_deep"},
        "vm_unet": {"arch": "vm_unet"},
        "vm_unet_deep": {"arch": "vm_unet_deep"},
    },
    backbone=MHSVMBackbone,
)
