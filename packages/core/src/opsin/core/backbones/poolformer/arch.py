"""The settings of a MetaFormer, and the published variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from opsin.core.backbones.poolformer.mixers import Grid, Mixer
from opsin.core.backbones.settings import one_a_stage
from opsin.core.errors import unknown
from opsin.core.layers.layer_norm import LayerNorm2d

EPS = 1e-5


@dataclass(frozen=True)
class Arch:
    """What makes a variant; names are the authors'.

    Attributes:
        layers: blocks of each stage.
        embed_dims: channels of each stage.
        token_mixers: one for all stages or one a stage; see `build_mixer`.
        norm: 'group' (GroupNorm of one group) or 'channel' (over the channels of each pixel).
        mlp_ratios: hidden over outer width of the perceptrons, one number or one a stage.
        pos_grids: (height, width) of the position table added before a stage, or None, for each stage.
        downsamples: whether there is a downsampling layer after a stage even if the width stays the same.
        use_layer_scale, layer_scale_init_value: a factor for every channel of a branch, and its first value.
        in_patch_size, in_stride, in_pad: the stem's convolution.
        down_patch_size, down_stride, down_pad: the convolutions between stages.
    """

    layers: Sequence[int]
    embed_dims: Sequence[int]
    token_mixers: Mixer | Sequence[Mixer] = "pooling"
    norm: Literal["group", "channel"] = "group"
    mlp_ratios: float | Sequence[float] = 4.0
    pos_grids: Sequence[Grid | None] | None = None
    downsamples: bool | Sequence[bool] = True
    use_layer_scale: bool = True
    layer_scale_init_value: float = 1e-5
    in_patch_size: int = 7
    in_stride: int = 4
    in_pad: int = 2
    down_patch_size: int = 3
    down_stride: int = 2
    down_pad: int = 1

    def __post_init__(self) -> None:
        for name in ("embed_dims", "token_mixers", "mlp_ratios", "pos_grids", "downsamples"):
            self.of_each_stage(name)
        if self.norm not in ("group", "channel"):
            raise unknown("norm of MetaFormer", self.norm, ("group", "channel"))

    def of_each_stage(self, name: str) -> tuple[Any, ...]:
        """A setting that may be one value for all stages, for each of them."""
        return one_a_stage(f"{name} of MetaFormer", getattr(self, name), len(self.layers))

    def has_downsample(self, stage: int) -> bool:
        """Whether a downsampling layer comes after the stage."""
        dims = self.embed_dims
        last = stage == len(self.layers) - 1
        return not last and (self.of_each_stage("downsamples")[stage] or dims[stage] != dims[stage + 1])

    def make_norm(self, dim: int) -> nn.Module:
        """The norm for maps of `dim` channels."""
        return nn.GroupNorm(1, dim, eps=EPS) if self.norm == "group" else LayerNorm2d(dim, eps=EPS)


_SMALL, _MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
_S12 = Arch((2, 2, 6, 2), _SMALL)
ARCHS: dict[str, Arch] = {
    "poolformer_s12": _S12,
    "poolformer_s24": Arch((4, 4, 12, 4), _SMALL),
    "poolformer_s36": Arch((6, 6, 18, 6), _SMALL, layer_scale_init_value=1e-6),
    "poolformer_m36": Arch((6, 6, 18, 6), _MEDIUM, layer_scale_init_value=1e-6),
    "poolformer_m48": Arch((8, 8, 24, 8), _MEDIUM, layer_scale_init_value=1e-6),
    "metaformer_id_s12": replace(_S12, token_mixers="identity"),
    "metaformer_pppa_s12_224": replace(
        _S12,
        token_mixers=("pooling", "pooling", "pooling", "attention"),
        norm="channel",
        pos_grids=(None, None, None, (7, 7)),
    ),
    "metaformer_ppaa_s12_224": replace(
        _S12,
        token_mixers=("pooling", "pooling", "attention", "attention"),
        norm="channel",
        pos_grids=(None, None, (14, 14), None),
    ),
    "metaformer_pppf_s12_224": replace(
        _S12,
        token_mixers=("pooling", "pooling", "pooling", {"type": "spatial_fc", "spatial_shape": (7, 7)}),
    ),
    "metaformer_ppff_s12_224": replace(
        _S12,
        token_mixers=(
            "pooling",
            "pooling",
            {"type": "spatial_fc", "spatial_shape": (14, 14)},
            {"type": "spatial_fc", "spatial_shape": (7, 7)},
        ),
    ),
}
