"""SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design (arXiv 2401.16456).

CVPR 2024; code ysj9909/SHViT, MIT. A hybrid backbone made for speed: a stem of stride 16, stages at strides
16, 32 and 64 (see `three_stage`), attention of one head on a part of the channels, none at all in the first
stage, and BatchNorms that fold away.

What a naive reading gets wrong: the attention's own norm is a GroupNorm of one group, which pools over
channels and places of a sample; the channels that bypass the attention are not normalised, but pass the ReLU
before the projection like the others; q and k have 16 channels, v has as many as go in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import resolve_arch
from opsin.core.backbones.cases import run_module
from opsin.core.backbones.three_stage import (
    STRIDES,
    ThreeStageBackbone,
    ThreeStageClassifier,
    run_network,
)
from opsin.core.errors import UserError
from opsin.core.layers.conv_ffn import ConvFFN
from opsin.core.layers.conv_norm import ConvNorm
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.residual import Residual, ResidualDepthwise
from opsin.core.layers.squeezed_merging import SqueezedMerging
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.registry import MODELS

Arch = Mapping[str, Sequence[Any]]

_SHARED: Arch = {"qk_dims": (16, 16, 16), "types": ("i", "s", "s")}
ARCHS: dict[str, Arch] = {
    "s1": {"dims": (128, 224, 320), "depths": (2, 4, 5), "partial_dims": (32, 48, 68), **_SHARED},
    "s2": {"dims": (128, 308, 448), "depths": (2, 4, 5), "partial_dims": (32, 66, 96), **_SHARED},
    "s3": {"dims": (192, 352, 448), "depths": (3, 5, 5), "partial_dims": (48, 75, 96), **_SHARED},
    "s4": {"dims": (224, 336, 448), "depths": (4, 7, 6), "partial_dims": (48, 72, 96), **_SHARED},
}


@MODELS.register_module()
class SingleHeadAttention(nn.Module):
    """SHSA: the first `partial_dim` channels attend to each other's places, the others pass by; projection.

    Args:
        dim: channels C.
        partial_dim: channels that attend.
        qk_dim: channels of queries and keys.
    """

    def __init__(self, dim: int, partial_dim: int, qk_dim: int = 16) -> None:
        super().__init__()
        self.widths = [qk_dim, qk_dim, partial_dim]
        self.bypassing = dim - partial_dim
        self.scale = qk_dim**-0.5
        self.pre_norm = nn.GroupNorm(1, partial_dim)
        self.qkv = ConvNorm(partial_dim, sum(self.widths))
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(dim, dim, weight_init=0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        attending, passing = x.split([self.widths[2], self.bypassing], dim=1)
        # N, channels, H * W
        q, k, v = self.qkv(self.pre_norm(attending)).flatten(2).split(self.widths, dim=1)
        # written out: no fused kernel takes values wider than queries, and falling back costs more
        weights = ((q * self.scale).transpose(1, 2) @ k).softmax(2)
        attended = (v @ weights.transpose(1, 2)).view(attending.shape)
        return self.proj(torch.cat([attended, passing], dim=1))


class Block(nn.Module):
    """Depth-wise 3x3, attention (or none), feed-forward network; each residual.

    Args:
        dim: channels C.
        partial_dim: channels that attend.
        qk_dim: channels of queries and keys.
        attends: False leaves the attention out.
        drop_path_rate: chance of dropping each branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, partial_dim: int, qk_dim: int, *, attends: bool, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = ResidualDepthwise(dim, weight_init=0.0, drop_path_rate=drop_path_rate)
        self.mixer = (
            Residual(SingleHeadAttention(dim, partial_dim, qk_dim), drop_path_rate)
            if attends
            else nn.Identity()
        )
        self.ffn = Residual(ConvFFN(dim, 2 * dim), drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.ffn(self.mixer(self.conv(x)))


def _settings(arch: str | Arch) -> dict[str, Any]:
    """The settings of a variant.

    Raises:
        UserError: for an unknown name or key, or settings that are not three of each.
    """
    settings = resolve_arch("SHViT", ARCHS, arch if isinstance(arch, str) else {**_SHARED, **arch})
    for key, values in settings.items():
        if len(values) != len(STRIDES):
            raise UserError(f"SHViT arch has {len(values)} {key} ({values}); give one a stage, three in all")
    if not set(settings["types"]) <= {"i", "s"}:
        raise UserError(f"SHViT arch has types {settings['types']}; 's' attends, 'i' does not")
    return settings


def _blocks(settings: Mapping[str, Any], drop_path_rate: float) -> list[list[Block]]:
    """Blocks of every stage; the drop path rate grows linearly over all of them."""
    rates = drop_path_rates(drop_path_rate, settings["depths"])
    shapes = zip(settings["dims"], settings["partial_dims"], settings["qk_dims"], strict=True)
    return [
        [Block(*shape, attends=kind == "s", drop_path_rate=rate) for rate in stage]
        for shape, kind, stage in zip(shapes, settings["types"], rates, strict=True)
    ]


@MODELS.register_module()
class SHViT(ThreeStageBackbone):
    """The feature extractor of the authors' detection code.

    Args:
        arch: 's1' to 's4', or dict(dims=…, depths=…, partial_dims=…) with three numbers each, and if they
            differ from the published ones qk_dims (16 each) and types ('i' without attention, 's' with it).
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0. Published models have none.
        out_indices, norm_eval: see `ThreeStageBackbone`.
        frozen_stages, with_cp, init_cfg: see `Backbone`. The authors' frozen_stages=0 is the same.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..2.
    """

    def __init__(
        self,
        arch: str | Arch = "s1",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2),
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        settings = _settings(arch)
        super().__init__(
            settings["dims"],
            _blocks(settings, drop_path_rate),
            in_channels=in_channels,
            out_indices=out_indices,
            norm_eval=norm_eval,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )


@MODELS.register_module()
class SHViTClassifier(ThreeStageClassifier):
    """The published classifier.

    Args:
        arch: as for `SHViT`.
        num_classes, distillation: see `ThreeStageClassifier`.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0. Published models have none.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Arch = "s1",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        distillation: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        settings = _settings(arch)
        super().__init__(
            settings["dims"],
            _blocks(settings, drop_path_rate),
            num_classes=num_classes,
            in_channels=in_channels,
            distillation=distillation,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )


register_models("shvit", SHViTClassifier, {f"shvit_{arch}": {"arch": arch} for arch in ARCHS}, backbone=SHViT)


_AUTHORS_KEYS = {"embed_dim": "dims", "depth": "depths", "partial_dim": "partial_dims", "qk_dim": "qk_dims"}
# what the authors' class takes where a case names neither a variant nor the argument
_AUTHORS_DEFAULTS: Arch = {
    "dims": (128, 256, 384),
    "depths": (1, 2, 3),
    "partial_dims": (32, 64, 96),
    "qk_dims": (16, 16, 16),
    "types": ("s", "s", "s"),
}


def _arch_of(case: Case) -> Arch:
    factory = re.search(r"shvit_(s\d)", case.source)
    named = ARCHS[factory[1]] if factory else _AUTHORS_DEFAULTS
    given = {_AUTHORS_KEYS.get(key, key): value for key, value in case.built_with.items()}
    return {key: given.get(key, value) for key, value in named.items()}


@adapter("shvit", r"\.py (SHViT|Partial_ViT_Exp|shvit_s\d)\b")
def _run_network(case: Case) -> dict[str, Tensor]:
    in_channels = case.built_with.get("in_chans", 3)
    if re.search(r"^\S+ downstream/", case.source):
        return run_network(SHViT(_arch_of(case), in_channels=in_channels), case)
    model = SHViTClassifier(
        _arch_of(case),
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=in_channels,
        distillation=case.built_with.get("distillation", False),
    )
    return run_network(model, case)


@adapter("shvit", r"\.py SHSA\b")
def _run_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    return run_module(SingleHeadAttention(given["dim"], given["pdim"], given["qk_dim"]), case)


@adapter("shvit", r"\.py BasicBlock\b")
def _run_block(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    block = Block(given["dim"], given["pdim"], given["qk_dim"], attends=given.get("type", "s") == "s")
    return run_module(block, case)


@adapter("shvit", r"\.py PatchMerging\b")
def _run_patch_merging(case: Case) -> dict[str, Tensor]:
    return run_module(SqueezedMerging(case.built_with["dim"], case.built_with["out_dim"]), case)


@adapter("shvit", r"\.py FFN\b")
def _run_ffn(case: Case) -> dict[str, Tensor]:
    return run_module(ConvFFN(case.built_with["ed"], case.built_with["h"]), case)
