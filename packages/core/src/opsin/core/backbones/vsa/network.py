"""ViTAE v2 with varied-size window attention in every cell: dense form and classifier.

Image (N, 3, H, W) to maps of strides 4, 8, 16, 32 and widths `token_dims`. Sides round up at every stage.

What a naive reading gets wrong: the classifier has no final norm, and neither have the dense maps. Drop path
rates are published with a slip that is kept: stage i reads the list of rates from the place where stage
i - 1's number of cells points, not from where stage i - 1 ended; reduction cells drop nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.settings import one_a_stage, resolve_settings
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.cells import NormalCell, PyramidReduction, ReductionCell
from opsin.core.errors import UserError, unknown
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

PER_STAGE = (
    "embed_dims",
    "token_dims",
    "nc_heads",
    "rc_heads",
    "nc_group",
    "rc_group",
    "downsample_ratios",
    "kernel_sizes",
    "dilations",
)


@dataclass(frozen=True)
class Arch:
    """What makes a variant; an entry a stage. `nc` are normal cells, `rc` the reduction cell before them.

    Attributes:
        embed_dims: channels of each convolution of a reduction's pyramid.
        token_dims: channels of each stage.
        nc_depth: normal cells of each stage.
        nc_heads, rc_heads: heads of their attention.
        nc_group, rc_group: groups of their convolutions.
        wide_pcm: whether the convolutions of reduction cells are twice as wide as the stage.
        window_size: side of the default windows.
        pos_size: side of the position convolutions' kernels, odd; 0 for none.
        mlp_ratio: hidden over outer width of the perceptrons of normal cells.
        downsample_ratios: strides of the reductions, powers of two up to 8.
        kernel_sizes, dilations: kernels of the pyramids, and their dilations, one a convolution.
        rc_op: whether the pyramids' convolutions stand side by side ('cat') or are added ('sum').
    """

    embed_dims: Sequence[int]
    token_dims: Sequence[int]
    nc_depth: Sequence[int]
    nc_heads: Sequence[int]
    rc_heads: Sequence[int]
    nc_group: Sequence[int] = (1, 32, 64, 128)
    rc_group: Sequence[int] = (1, 16, 32, 64)
    wide_pcm: bool = True
    window_size: int = 7
    pos_size: int = 7
    mlp_ratio: float = 4.0
    downsample_ratios: Sequence[int] = (4, 2, 2, 2)
    kernel_sizes: Sequence[int] = (7, 3, 3, 3)
    dilations: Sequence[Sequence[int]] = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2))
    rc_op: Literal["cat", "sum"] = "cat"

    def __post_init__(self) -> None:
        for name in PER_STAGE:
            one_a_stage(f"{name} of ViTAEv2VSA", getattr(self, name), len(self.nc_depth))
        if self.rc_op not in ("cat", "sum"):
            raise unknown("rc_op of ViTAEv2VSA", self.rc_op, ("cat", "sum"))
        for ratio in self.downsample_ratios:
            if ratio not in (1, 2, 4, 8):
                raise UserError(f"downsample_ratios {self.downsample_ratios} must be 1, 2, 4 or 8")
        if self.pos_size < 0 or (self.pos_size and self.pos_size % 2 == 0):
            raise UserError(f"pos_size {self.pos_size} of ViTAEv2VSA must be odd, or 0 for none")
        for dims, groups in ((self.token_dims, self.nc_group), (self.embed_dims, self.rc_group)):
            for dim, group in zip(dims, groups, strict=True):
                if dim % group:
                    raise UserError(f"{group} groups of ViTAEv2VSA do not divide a width of {dim}")

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.nc_depth)

    def drop_path_rates(self, rate: float) -> list[list[float]]:
        """The rates of the normal cells of every stage."""
        rates = torch.linspace(0, rate, sum(self.nc_depth), device="cpu").tolist()
        starts = [0, *self.nc_depth[:-1]]
        return [rates[start : start + depth] for start, depth in zip(starts, self.nc_depth, strict=True)]


_SMALL = Arch(
    embed_dims=(64, 64, 128, 256),
    token_dims=(64, 128, 256, 512),
    nc_depth=(2, 2, 8, 2),
    nc_heads=(2, 4, 8, 16),
    rc_heads=(2, 2, 4, 8),
    wide_pcm=False,
)
_BASE = Arch(
    embed_dims=(128, 128, 256, 512),
    token_dims=(128, 256, 512, 1024),
    nc_depth=(2, 2, 12, 2),
    nc_heads=(4, 8, 16, 32),
    rc_heads=(4, 8, 16, 32),
)
ARCHS: dict[str, Arch] = {
    "small": _SMALL,
    "wide_small": replace(_SMALL, rc_heads=_SMALL.nc_heads, wide_pcm=True),
    "48m": Arch(
        embed_dims=(96, 96, 192, 384),
        token_dims=(96, 192, 384, 768),
        nc_depth=(2, 2, 11, 2),
        nc_heads=(3, 6, 12, 24),
        rc_heads=(3, 6, 12, 24),
    ),
    "base": _BASE,
    "base_ws12": replace(_BASE, window_size=12),
}


class Stage(nn.Module):
    """A reduction cell, `RC`, and the normal cells after it, `NC`."""

    def __init__(self, rc: ReductionCell, nc: Iterable[NormalCell]) -> None:
        super().__init__()
        self.RC = rc
        self.NC = nn.ModuleList(nc)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to the stage's map."""
        x = self.RC(x)
        for cell in self.NC:
            x = cell(x)
        return x


def _stage(index: int, in_channels: int, arch: Arch, rates: Sequence[float], **attention: Any) -> Stage:
    """Stage `index`; `attention` are settings of every attention."""
    dim, embed_dim = arch.token_dims[index], arch.embed_dims[index]
    attention = {**attention, "out_dim": dim, "window_size": arch.window_size}
    prm = PyramidReduction(
        in_channels,
        embed_dim,
        arch.kernel_sizes[index],
        arch.downsample_ratios[index],
        arch.dilations[index],
        arch.rc_op,
    )
    rc = ReductionCell(
        in_channels,
        prm,
        VSAWindowAttention(prm.out_channels, arch.rc_heads[index], **attention),
        arch.rc_group[index],
        inner_dim=2 * dim if arch.wide_pcm else embed_dim,
        pos_size=arch.pos_size,
    )
    nc = (
        NormalCell(
            dim,
            VSAWindowAttention(dim, arch.nc_heads[index], **attention),
            arch.nc_group[index],
            pos_size=arch.pos_size,
            mlp_ratio=arch.mlp_ratio,
            drop_path_rate=rate,
        )
        for rate in rates
    )
    return Stage(rc, nc)


class ViTAEv2VSATrunk(Trunk):
    """What backbone and classifier share: the stages, `layers`."""

    arch: Arch

    def add_stages(
        self, arch: Arch, in_channels: int, drop_path_rate: float, built: int, **attention: Any
    ) -> None:
        """Makes the first `built` stages; drop path rates are those of the whole network."""
        self.arch = arch
        widths = [in_channels, *arch.token_dims]
        rates = arch.drop_path_rates(drop_path_rate)
        self.layers = nn.ModuleList(
            _stage(index, widths[index], arch, rates[index], **attention) for index in range(built)
        )
        self.apply(init_linear)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map (N, C_i, H_i, W_i) of every stage."""
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.layers:
            assert isinstance(stage, Stage)
            x = self.run(stage.RC, x)
            for cell in stage.NC:
                x = self.run(cell, x)
            yield x

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the first reduction, each normal cell, the head.

        A later reduction goes with the normal cell after it. The authors decay no rates by layer; this is the
        grouping of other hierarchical networks.
        """
        depths = self.arch.nc_depth
        last = sum(depths) + 1
        part = re.match(r"layers\.(\d+)\.(?:RC|NC\.(\d+))\.", name.removeprefix(prefix))
        if part is None:
            return last, last + 1
        stage = int(part[1])
        before = sum(depths[:stage])
        return before + (int(stage > 0) if part[2] is None else int(part[2]) + 1), last + 1

    def no_weight_decay(self) -> set[str]:
        """The tables of relative positions."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}


def _without_indices(tensors: Tensors) -> Tensors:
    """Published tensors without the index tables, which the window's size alone says."""
    return {name: t for name, t in tensors.items() if not name.endswith("relative_position_index")}


@MODELS.register_module()
class ViTAEv2VSA(ViTAEv2VSATrunk, Backbone):
    """The feature extractor of the authors' detection code; maps leave it without a norm.

    Args:
        arch: a name in `ARCHS` ('small', 'wide_small', '48m', 'base', 'base_ws12'), or a mapping of `Arch`'s
            fields.
        in_channels: channels of the image.
        drop_path_rate: the largest rate; see the module for which cells have which.
        qkv_bias: whether queries, keys and values have a bias.
        centred_padding, swapped_divisors: see `VSAWindowAttention`; both as the authors' detector has them.
        out_indices: stages that give a map; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        settings: fields of `Arch` that replace those of `arch`.

    Raises:
        UserError: for an unknown `arch` or setting, settings that don't fit each other, or impossible
            `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        centred_padding: bool = True,
        swapped_divisors: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        resolved = resolve_settings("ViTAEv2VSA", ARCHS, arch, settings)
        self.check_out_indices(resolved.stages)
        self.add_stages(
            resolved,
            in_channels,
            drop_path_rate,
            built=self.out_indices[-1] + 1,
            qkv_bias=qkv_bias,
            centred_padding=centred_padding,
            swapped_divisors=swapped_divisors,
        )
        strides = torch.tensor(resolved.downsample_ratios, device="cpu").cumprod(0).tolist()
        self.feature_info = tuple(FeatureInfo(resolved.token_dims[i], strides[i]) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        return tuple(m for index, m in enumerate(self.maps(x)) if index in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The first reduction cell (0), or all of stage `stage` (from 1)."""
        if stage == 0:
            return [self.layers[0].get_submodule("RC")]
        return [self.layers[stage - 1]] if stage <= len(self.layers) else []

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier, detector or segmentor of the authors to those of this backbone."""
        later = "|".join(str(stage) for stage in range(len(self.layers), self.arch.stages))
        unused = r"^head\." + (rf"|^layers\.({later})\." if later else "")
        return fit(self.state_dict(), _without_indices(backbone_of(tensors)), unused=unused)


@MODELS.register_module()
class ViTAEv2VSAClassifier(ViTAEv2VSATrunk, Classifier):
    """The published classifier: four stages, mean over positions, linear head.

    Args:
        arch, in_channels, drop_path_rate, qkv_bias, settings: as for `ViTAEv2VSA`.
        num_classes: logits; 0 for no head.
        centred_padding, swapped_divisors: see `VSAWindowAttention`; neither in the authors' classifier.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: as `ViTAEv2VSA` does.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        centred_padding: bool = False,
        swapped_divisors: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        resolved = resolve_settings("ViTAEv2VSA", ARCHS, arch, settings)
        self.num_features = resolved.token_dims[-1]
        self.add_stages(
            resolved,
            in_channels,
            drop_path_rate,
            built=resolved.stages,
            qkv_bias=qkv_bias,
            centred_padding=centred_padding,
            swapped_divisors=swapped_divisors,
        )
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean vector (N, num_features)."""
        *_, x = self.maps(x)
        return x.mean((2, 3))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors to those of this network."""
        return _without_indices(tensors)


register_models(
    "vsa",
    ViTAEv2VSAClassifier,
    {f"vitaev2_vsa_{arch}": {"arch": arch} for arch in ARCHS},
    backbone=ViTAEv2VSA,
)
