"""EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention (arXiv 2305.07027).

CVPR 2023; code microsoft/Cream, folder EfficientViT, MIT. Not the EfficientViT of MIT-HAN (2205.14756): timm
calls this one `efficientvit_msra`. A stem of stride 16, stages at strides 16, 32 and 64 (see `three_stage`),
and one attention a block between depth-wise convolutions and feed-forward networks. BatchNorms fold away.

In cascaded group attention a head gets its own slice of the channels and adds the output of the head before
it. It works inside windows of 7x7.

What a naive reading gets wrong: what is added is the attention's output, before ReLU and projection; maps are
padded below and on the right before queries, keys and values are made, so the padding takes part with what
the norms make of zeros; the depth-wise convolution on the queries stays inside a window; the bias depends on
|dy| and |dx| alone. A classifier's windows are as large as its maps at `img_size` where these are smaller
than 7 (the third stage at 224: 4), a backbone's are always 7.

Any size of image goes through: maps are padded to whole windows. The authors' code keeps the gathered biases
from the last call of `eval()` on; here they follow the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import resolve_arch
from opsin.core.backbones.cases import run_module
from opsin.core.backbones.three_stage import (
    STRIDES,
    ThreeStageBackbone,
    ThreeStageClassifier,
    ThreeStages,
    run_network,
)
from opsin.core.errors import UserError
from opsin.core.layers.conv_ffn import ConvFFN
from opsin.core.layers.conv_norm import ConvNorm
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.efficientvit_fpn import EfficientViTFPN
from opsin.core.layers.residual import Residual, ResidualDepthwise
from opsin.core.layers.squeezed_merging import SqueezedMerging
from opsin.core.layers.windows import pad_to_multiple, partition, reverse
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, place
from opsin.registry import MODELS

Arch = Mapping[str, Sequence[int]]

_SHARED: Arch = {"key_dims": (16, 16, 16), "windows": (7, 7, 7)}
_EVEN, _FALLING = (5, 5, 5, 5), (7, 5, 3, 3)
ARCHS: dict[str, Arch] = {
    name: {"dims": dims, "depths": depths, "num_heads": num_heads, "kernels": kernels, **_SHARED}
    for name, dims, depths, num_heads, kernels in (
        ("m0", (64, 128, 192), (1, 2, 3), (4, 4, 4), _EVEN),
        ("m1", (128, 144, 192), (1, 2, 3), (2, 3, 3), _FALLING),
        ("m2", (128, 192, 224), (1, 2, 3), (4, 3, 2), _FALLING),
        ("m3", (128, 240, 320), (1, 2, 3), (4, 3, 4), _EVEN),
        ("m4", (128, 256, 384), (1, 2, 3), (4, 4, 4), _FALLING),
        ("m5", (192, 288, 384), (1, 3, 4), (3, 3, 4), _FALLING),
    )
}


def absolute_offset_index(side: int) -> Tensor:
    """(N, N) entries of a bias table for each query and key of a window, N = side * side.

    Offset (dy, dx) is in entry |dy| * side + |dx|.
    """
    rows = torch.arange(side, device="cpu")
    y, x = rows.repeat_interleave(side), rows.repeat(side)
    return (y[:, None] - y).abs() * side + (x[:, None] - x).abs()


def resize_bias_table(table: Tensor, entries: int) -> Tensor:
    """A table (heads, side * side) for another side, bicubic, so that it has `entries` entries a head."""
    if table.shape[1] == entries:
        return table
    side, new_side = math.isqrt(table.shape[1]), math.isqrt(entries)
    square = table.view(1, -1, side, side)
    return F.interpolate(square, size=(new_side, new_side), mode="bicubic")[0].flatten(1)


@MODELS.register_module()
class CascadedGroupAttention(nn.Module):
    """Heads one after the other, each on its slice of the channels plus the output of the one before.

    Args:
        dim: channels C.
        num_heads: heads h; values are C / h wide.
        key_dim: channels of queries and keys.
        window: side r of the maps, which sizes the bias table `attention_biases` (h, r * r).
        kernels: side of the depth-wise kernel on each head's queries, at least h of them.

    Raises:
        UserError: if the heads don't divide the channels or there are fewer kernels than heads.
    """

    attention_bias_idxs: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        key_dim: int = 16,
        window: int = 7,
        kernels: Sequence[int] = (7, 5, 3, 3),
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"{num_heads} heads don't divide {dim} channels")
        if len(kernels) < num_heads:
            raise UserError(f"kernels {tuple(kernels)} are fewer than {num_heads} heads")
        width = dim // num_heads
        self.widths = [key_dim, key_dim, width]
        self.scale = key_dim**-0.5
        self.qkvs = nn.ModuleList(ConvNorm(width, sum(self.widths)) for _ in range(num_heads))
        self.dws = nn.ModuleList(
            ConvNorm(key_dim, key_dim, kernel, groups=key_dim) for kernel in kernels[:num_heads]
        )
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(dim, dim, weight_init=0.0))
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.register_buffer("attention_bias_idxs", absolute_offset_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, r, r) to the same shape."""
        biases = self.attention_biases[:, self.attention_bias_idxs]
        heads: list[Tensor] = []
        for chunk, qkv, dw, bias in zip(
            x.chunk(len(self.qkvs), dim=1), self.qkvs, self.dws, biases, strict=True
        ):
            q, k, v = qkv(chunk + heads[-1] if heads else chunk).split(self.widths, dim=1)
            q, k, v = (part.flatten(2).transpose(1, 2) for part in (dw(q), k, v))  # N, r * r, channels
            # written out: no fused kernel takes values wider than queries, and falling back costs more
            logits = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=self.scale)
            heads.append((logits.softmax(2) @ v).transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.proj(torch.cat(heads, dim=1))


class WindowAttention(nn.Module):
    """Cascaded group attention inside the windows of a map, which is padded with zeros to whole windows.

    Args:
        dim, num_heads, key_dim, window, kernels: see `CascadedGroupAttention`.
    """

    def __init__(
        self, dim: int, num_heads: int, *, key_dim: int, window: int, kernels: Sequence[int]
    ) -> None:
        super().__init__()
        self.window = (window, window)
        self.attn = CascadedGroupAttention(dim, num_heads, key_dim=key_dim, window=window, kernels=kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        height, width = x.shape[2:]
        if (height, width) == self.window:
            return self.attn(x)
        padded = pad_to_multiple(x.permute(0, 2, 3, 1), self.window)
        windows = partition(padded, self.window).unflatten(1, self.window).permute(0, 3, 1, 2)
        attended = self.attn(windows).permute(0, 2, 3, 1).flatten(1, 2)
        size = (padded.shape[1], padded.shape[2])
        return reverse(attended, self.window, size)[:, :height, :width].permute(0, 3, 1, 2)


class Block(nn.Module):
    """The attention between two pairs of a depth-wise 3x3 and a feed-forward network; each residual.

    Args:
        dim, num_heads, key_dim, window, kernels: see `CascadedGroupAttention`.
        drop_path_rate: chance of dropping each branch of a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        key_dim: int,
        window: int,
        kernels: Sequence[int],
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        attention = WindowAttention(dim, num_heads, key_dim=key_dim, window=window, kernels=kernels)
        self.dw0 = ResidualDepthwise(dim, weight_init=0.0, drop_path_rate=drop_path_rate)
        self.ffn0 = Residual(ConvFFN(dim, 2 * dim), drop_path_rate)
        self.mixer = Residual(attention, drop_path_rate)
        self.dw1 = ResidualDepthwise(dim, weight_init=0.0, drop_path_rate=drop_path_rate)
        self.ffn1 = Residual(ConvFFN(dim, 2 * dim), drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


def _settings(arch: str | Arch) -> dict[str, Any]:
    """The settings of a variant.

    Raises:
        UserError: for an unknown name or key, or settings that are not three of each.
    """
    settings = resolve_arch("EfficientViT", ARCHS, arch if isinstance(arch, str) else {**_SHARED, **arch})
    for key, values in settings.items():
        if key != "kernels" and len(values) != len(STRIDES):
            raise UserError(
                f"EfficientViT arch has {len(values)} {key} ({values})", "give one a stage, three in all"
            )
    return settings


def _blocks(settings: Mapping[str, Any], windows: Sequence[int], drop_path_rate: float) -> list[list[Block]]:
    """Blocks of every stage; the drop path rate grows linearly over all of them."""
    rates = drop_path_rates(drop_path_rate, settings["depths"])
    shapes = zip(settings["dims"], settings["num_heads"], settings["key_dims"], windows, strict=True)
    return [
        [Block(*shape, settings["kernels"], rate) for rate in stage]
        for shape, stage in zip(shapes, rates, strict=True)
    ]


def windows_at(img_size: int, windows: Sequence[int]) -> list[int]:
    """Windows of the three stages at `img_size` pixels: no larger than the stage's map."""
    side, fitted = max(1, img_size // STRIDES[0]), []
    for window in windows:
        fitted.append(min(window, side))
        side = (side - 1) // 2 + 1
    return fitted


class _BiasTables(ThreeStages):
    """What EfficientViT's tables of biases ask of its backbone and classifier."""

    def no_weight_decay(self) -> set[str]:
        """The bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("attention_biases")}

    def fitted_tables(self, tensors: Tensors) -> Tensors:
        """The tensors with bias tables resized to the windows here, without the published index tables."""
        own = self.state_dict()
        return {
            name: resize_bias_table(tensor, own[name].shape[1])
            if name.endswith("attention_biases") and name in own
            else tensor
            for name, tensor in tensors.items()
            if not name.endswith("attention_bias_idxs")
        }


@MODELS.register_module()
class EfficientViT(_BiasTables, ThreeStageBackbone):
    """The feature extractor of the authors' detection code.

    Args:
        arch: 'm0' to 'm5', or dict(dims=…, depths=…, num_heads=…) with three numbers each, kernels (one a
            head), and if they differ from the published ones key_dims (16 each) and windows (7 each).
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0. Published models have none.
        out_indices, norm_eval: see `ThreeStageBackbone`.
        frozen_stages, with_cp, init_cfg: see `Backbone`. The authors' frozen_stages=0 is the same.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..2.
    """

    def __init__(
        self,
        arch: str | Arch = "m4",
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
            _blocks(settings, settings["windows"], drop_path_rate),
            in_channels=in_channels,
            out_indices=out_indices,
            norm_eval=norm_eval,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )

    def from_published(self, tensors: Tensors) -> Tensors:
        """As `ThreeStageBackbone`; a classifier's smaller bias tables (stage 3) are resized."""
        return self.fitted_tables(super().from_published(tensors))


@MODELS.register_module()
class EfficientViTClassifier(_BiasTables, ThreeStageClassifier):
    """The published classifier.

    Args:
        arch: as for `EfficientViT`.
        img_size: pixels a side that the windows are made for; images may have another size.
        num_classes, distillation: see `ThreeStageClassifier`.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0. Published models have none.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Arch = "m0",
        *,
        img_size: int = 224,
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
            _blocks(settings, windows_at(img_size, settings["windows"]), drop_path_rate),
            num_classes=num_classes,
            in_channels=in_channels,
            distillation=distillation,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )

    def from_published(self, tensors: Tensors) -> Tensors:
        """As `ThreeStageClassifier`; bias tables of another `img_size` are resized."""
        return self.fitted_tables(super().from_published(tensors))


register_models(
    "efficientvit",
    EfficientViTClassifier,
    {f"efficientvit_{arch}": {"arch": arch} for arch in ARCHS},
    backbone=EfficientViT,
)


_AUTHORS_KEYS = {"embed_dim": "dims", "depth": "depths", "key_dim": "key_dims", "window_size": "windows"}


def _is_detectors(case: Case) -> bool:
    return re.search(r"^\S+ \S*downstream/", case.source) is not None


def _arch_of(case: Case) -> Arch:
    """The case's settings; what it does not give is its factory's, else M0's, which the class defaults to."""
    factory = re.search(r"EfficientViT_M(\d)", case.source)
    named = dict(ARCHS[f"m{factory[1]}" if factory else "m0"])
    if factory and factory[1] == "0" and _is_detectors(case):
        named["kernels"] = _FALLING  # the detectors' file lists M0 so
    given = {_AUTHORS_KEYS.get(key, key): value for key, value in case.built_with.items()}
    return {key: given.get(key, value) for key, value in named.items()}


@adapter("efficientvit", r"\.py EfficientViT(_M\d)?\b")
def _run_network(case: Case) -> dict[str, Tensor]:
    in_channels = case.built_with.get("in_chans", 3)
    if _is_detectors(case):
        return run_network(EfficientViT(_arch_of(case), in_channels=in_channels), case)
    model = EfficientViTClassifier(
        _arch_of(case),
        img_size=case.built_with.get("img_size", 224),
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=in_channels,
        distillation=case.built_with.get("distillation", False),
    )
    return run_network(model, case)


def _window_of(case: Case) -> int:
    """The side of the windows; the detectors' are not bound by the map's."""
    window, side = case.built_with.get("window_resolution", 7), case.built_with.get("resolution", 14)
    return window if _is_detectors(case) else min(window, side)


@adapter("efficientvit", r"\.py CascadedGroupAttention\b")
def _run_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    attention = CascadedGroupAttention(
        given["dim"],
        given.get("num_heads", 8),
        key_dim=given["key_dim"],
        window=given.get("resolution", 14),
        kernels=given.get("kernels", _EVEN),
    )
    return run_module(attention, case)


@adapter("efficientvit", r"\.py LocalWindowAttention\b")
def _run_window_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    attention = WindowAttention(
        given["dim"],
        given.get("num_heads", 8),
        key_dim=given["key_dim"],
        window=_window_of(case),
        kernels=given.get("kernels", _EVEN),
    )
    return run_module(attention, case)


@adapter("efficientvit", r"\.py EfficientViTBlock\b")
def _run_block(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    kernels = given.get("kernels", _EVEN)
    return run_module(Block(given["ed"], given.get("nh", 8), given["kd"], _window_of(case), kernels), case)


@adapter("efficientvit", r"\.py PatchMerging\b")
def _run_patch_merging(case: Case) -> dict[str, Tensor]:
    return run_module(SqueezedMerging(case.built_with["dim"], case.built_with["out_dim"]), case)


@adapter("efficientvit", r"\.py FFN\b")
def _run_ffn(case: Case) -> dict[str, Tensor]:
    return run_module(ConvFFN(case.built_with["ed"], case.built_with["h"]), case)


@adapter("efficientvit", r"\.py EfficientViTFPN\b")
@torch.no_grad()
def _run_neck(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    extra_convs = given.get("add_extra_convs", False)
    if extra_convs is True and not given.get("extra_convs_on_inputs", True):
        extra_convs = "on_output"
    neck = EfficientViTFPN(
        given["in_channels"],
        given["out_channels"],
        given["num_outs"],
        start_level=given.get("start_level", 0),
        end_level=given.get("end_level", -1),
        add_extra_convs=extra_convs,
        relu_before_extra_convs=given.get("relu_before_extra_convs", False),
        num_extra_trans_convs=given.get("num_extra_trans_convs", 0),
    )
    place(neck, case.state_dict())
    levels = neck(list(case.inputs().values()))
    return dict(zip(case.meta["outputs"], levels, strict=True))
