"""VAN: Visual Attention Network (arXiv 2202.09741, Computational Visual Media 2023).

Authors' code: Visual-Attention-Network/VAN-Classification and VAN-Segmentation, both Apache-2.0 (their
READMEs ask commercial users to contact the authors).

A convolutional backbone whose blocks look at each pixel's wide surroundings by large kernel attention:
three convolutions with few weights make a map that multiplies their input. Image (N, 3, H, W) to maps of
strides 4, 8, 16, 32 and widths `embed_dims`; every strided convolution rounds up, so any size goes through.

What a naive reading gets wrong: the attention is neither bounded nor normalised, there is no sigmoid and no
softmax; its module has a shortcut of its own inside the block's, taken after the norm; the 21x21 of the
paper is 23x23 in the decomposition; norms inside blocks and embeddings are batch norms, while each stage
ends in a layer norm that the next stage reads through, of epsilon 1e-6 in the classifier and 1e-5 in the
dense backbone.

Maps travel in the channels-last memory format, where depth-wise convolutions are faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.cases import (
    map_size,
    only_input,
    only_output,
    run_backbone,
    run_classifier,
    run_module,
)
from opsin.core.backbones.numbered_stages import STRIDES, NumberedStages, stage_settings
from opsin.core.errors import UserError
from opsin.core.layers.conv_norm import fold_conv, fold_pointwise, scale_and_shift
from opsin.core.layers.depthwise_conv import DepthwiseConv
from opsin.core.layers.dilated_depthwise import DilatedDepthwiseConv2d
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, place
from opsin.registry import MODELS

Arch = Mapping[str, Sequence[int]]


def _arch(embed_dims: Sequence[int], depths: Sequence[int]) -> Arch:
    return {"embed_dims": embed_dims, "depths": depths, "mlp_ratios": (8, 8, 4, 4)}


ARCHS: dict[str, Arch] = {
    "b0": _arch((32, 64, 160, 256), (3, 3, 5, 2)),
    "b1": _arch((64, 128, 320, 512), (2, 2, 4, 2)),
    "b2": _arch((64, 128, 320, 512), (3, 3, 12, 3)),
    "b3": _arch((64, 128, 320, 512), (3, 5, 27, 3)),
    "b4": _arch((64, 128, 320, 512), (3, 6, 40, 3)),
    "b5": _arch((96, 192, 480, 768), (3, 3, 24, 3)),
    "b6": _arch((96, 192, 384, 768), (6, 6, 90, 6)),
}


@MODELS.register_module()
class LargeKernelAttention(nn.Module):
    """A map weighted, at every pixel and channel, by what lies around: `x * conv1(conv_spatial(conv0(x)))`.

    A kernel of `kernel_size` is taken apart into a depth-wise convolution that joins neighbours (`conv0`), a
    dilated depth-wise one that reaches far (`conv_spatial`) and a 1x1 one that mixes channels (`conv1`). Its
    weights for C channels are C * (2d - 1)**2 + C * ⌈K / d⌉**2 + C**2 instead of C**2 * K**2.

    Args:
        dim: channels C.
        kernel_size: side K of the kernel that is taken apart.
        dilation: dilation d of `conv_spatial`.

    Raises:
        UserError: unless ⌈K / d⌉, the side of `conv_spatial`, is odd.
    """

    def __init__(self, dim: int, *, kernel_size: int = 21, dilation: int = 3) -> None:
        super().__init__()
        taps = -(-kernel_size // dilation)
        if taps % 2 == 0:
            raise UserError(
                f"kernel_size {kernel_size} at dilation {dilation} needs a convolution of {taps}x{taps} taps",
                "choose them so that kernel_size / dilation rounds up to an odd number",
            )
        self.conv0 = nn.Conv2d(dim, dim, 2 * dilation - 1, padding=dilation - 1, groups=dim)
        self.conv_spatial = DilatedDepthwiseConv2d(dim, taps, dilation)
        self.conv1 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.attention(x)

    def attention(self, x: Tensor) -> Tensor:
        """What `x` (N, C, H, W) is multiplied by; unbounded, of the same shape."""
        return self.conv1(self.conv_spatial(self.conv0(x)))


class Attention(nn.Module):
    """Large kernel attention between two 1x1 convolutions, with a shortcut.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        self.spatial_gating_unit = LargeKernelAttention(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        """The module without its shortcut."""
        return self.proj_2(self.spatial_gating_unit(self.act(self.proj_1(x))))


class Mlp(nn.Module):
    """1x1 expansion, depth-wise 3x3, GELU, 1x1 projection.

    Args:
        dim: channels C.
        hidden_dim: channels between.
        drop: dropout rate after the activation and after the projection.
        linear: a ReLU after the expansion.
    """

    def __init__(self, dim: int, hidden_dim: int, *, drop: float = 0.0, linear: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.relu = nn.ReLU() if linear else nn.Identity()
        self.dwconv = DepthwiseConv(hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = self.drop(self.act(self.dwconv(self.relu(self.fc1(x)))))
        return self.drop(self.fc2(x))


class Block(nn.Module):
    """Attention, then perceptron, each after a batch norm, scaled by channel and added to what came in.

    Args:
        dim: channels C.
        mlp_ratio: the perceptron's width over C.
        drop: dropout rate in the perceptron.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        linear: a ReLU in the perceptron.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        *,
        drop: float = 0.0,
        drop_path_rate: float = 0.0,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = Attention(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop, linear=linear)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-2))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)) * self.layer_scale_1.view(-1, 1, 1))
        return x + self.drop_path(self.mlp(self.norm2(x)) * self.layer_scale_2.view(-1, 1, 1))

    def fused(self) -> FusedBlock:
        """The block with norms and layer scales folded into its 1x1 convolutions, for evaluation."""
        return FusedBlock(self)


class FusedBlock(nn.Module):
    """A block in evaluation: `x * shortcut + attention branch`, then `+ mlp`, without norms and scales.

    The inner shortcut is affine in x, so it joins the outer one: `shortcut` (C, 1, 1), its constant part in
    the bias of `proj_2`. The block that it is made from must not be used afterwards.
    """

    shortcut: Tensor

    @torch.no_grad()
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.attn, self.mlp = block.attn, block.mlp
        scale, shift = scale_and_shift(block.norm1)
        self.register_buffer("shortcut", (1 + block.layer_scale_1 * scale).view(-1, 1, 1))
        self.attn.proj_1 = fold_pointwise(block.norm1, self.attn.proj_1)
        self.mlp.fc1 = fold_pointwise(block.norm2, self.mlp.fc1)
        _scale_output(self.attn.proj_2, block.layer_scale_1, shift)
        _scale_output(self.mlp.fc2, block.layer_scale_2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x * self.shortcut + self.attn.branch(x)
        return x + self.mlp(x)


def _scale_output(conv: nn.Conv2d, scale: Tensor, shift: Tensor | float = 0.0) -> None:
    """Makes of `conv(x)` in place `(conv(x) + shift) * scale`, both (C,)."""
    assert conv.bias is not None
    conv.weight.mul_(scale.view(-1, 1, 1, 1))
    conv.bias.add_(shift).mul_(scale)


class PatchEmbed(nn.Module):
    """A strided convolution whose patches overlap, and its batch norm.

    Args:
        in_channels: channels in.
        dim: channels out.
        kernel_size: side of the kernel; padding is half of it.
        stride: stride.
    """

    def __init__(self, in_channels: int, dim: int, *, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return self.norm(self.proj(x))

    def fused(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        return fold_conv(self.proj, self.norm)


def _stages(
    settings: Mapping[str, Sequence[int]],
    *,
    in_channels: int,
    norm_eps: float,
    drop_rate: float,
    drop_path_rate: float,
    linear: bool,
) -> Iterator[tuple[PatchEmbed, list[Block], LayerNorm2d]]:
    """Embedding, blocks and norm of every stage; the drop path rate grows over all blocks."""
    rates = drop_path_rates(drop_path_rate, settings["depths"])
    for index, (dim, ratio) in enumerate(zip(settings["embed_dims"], settings["mlp_ratios"], strict=True)):
        kernel_size, stride = (3, 2) if index else (7, 4)
        yield (
            PatchEmbed(in_channels, dim, kernel_size=kernel_size, stride=stride),
            [Block(dim, ratio, drop=drop_rate, drop_path_rate=rate, linear=linear) for rate in rates[index]],
            LayerNorm2d(dim, eps=norm_eps),
        )
        in_channels = dim


@MODELS.register_module()
class VAN(NumberedStages, Backbone):
    """The feature extractor of the authors' segmentation code; stages after the last output are not built.

    Args:
        arch: 'b0' … 'b6', or dict(embed_dims=…, depths=…, mlp_ratios=…) with four numbers each.
        in_channels: channels of the image.
        drop_rate: dropout rate in the perceptrons.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        linear: a ReLU after each perceptron's expansion; no published model has it.
        norm_eps: epsilon of the stages' norms (the authors' classifiers have 1e-6).
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Arch = "b0",
        *,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        linear: bool = False,
        norm_eps: float = 1e-5,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = stage_settings("VAN", ARCHS, arch)
        self.check_out_indices(len(STRIDES))
        self.depths = tuple(settings["depths"])
        stages = _stages(
            settings,
            in_channels=in_channels,
            norm_eps=norm_eps,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            linear=linear,
        )
        self.add_stages(islice(stages, self.out_indices[-1] + 1))
        self.feature_info = tuple(
            FeatureInfo(settings["embed_dims"][i], STRIDES[i]) for i in self.out_indices
        )
        self.apply(init_conv_fan_out)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = enumerate(self.normed_maps(x.contiguous(memory_format=torch.channels_last)))
        return tuple(m for index, m in maps if index in self.out_indices)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's or a whole segmentor's file to those of this backbone.

        Takes the authors' and mmpretrain's layout; heads and stages beyond `out_indices` are dropped.
        """
        return self.of_classifier(_authors_names(tensors))


@MODELS.register_module()
class VANClassifier(NumberedStages, Classifier):
    """The published classifier: four stages, mean over the last normed map, linear head.

    Args:
        arch, in_channels, drop_rate, drop_path_rate, linear: as for `VAN`.
        num_classes: logits; 0 for no head.
        norm_eps: epsilon of the stages' norms.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Arch = "b0",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        linear: bool = False,
        norm_eps: float = 1e-6,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = stage_settings("VAN", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        self.num_features = settings["embed_dims"][-1]
        stages = _stages(
            settings,
            in_channels=in_channels,
            norm_eps=norm_eps,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            linear=linear,
        )
        self.add_stages(stages)
        self.apply(init_conv_fan_out)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean (N, num_features) of the last normed map."""
        *_, last = self.normed_maps(x.contiguous(memory_format=torch.channels_last))
        return last.mean((2, 3))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file in the authors' or mmpretrain's layout to those of this network."""
        return _authors_names(tensors)


# mmpretrain's names of the same tensors
_RENAMES = (
    (r"^blocks(\d)\.", r"block\1."),
    (r"^(patch_embed\d)\.projection\.", r"\1.proj."),
    (r"\.DW_conv\.", r".conv0."),
    (r"\.DW_D_conv\.", r".conv_spatial."),
    (r"\.mlp\.dwconv\.(?!dwconv)", r".mlp.dwconv.dwconv."),
    (r"^head\.fc\.", r"head."),
)


def _authors_names(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in backbone_of(tensors, "head.fc.").items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


register_models("van", VANClassifier, {f"van_{arch}": {"arch": arch} for arch in ARCHS}, backbone=VAN)


def _case_arch(case: Case, mlp_ratios: Sequence[int]) -> dict[str, Any]:
    """The case's architecture: its arguments, those of the named variant, or the class's own defaults.

    Arguments for fewer than four stages are filled up, for stages that are not built then.
    """
    variant = re.search(r"van_(b\d)\b", case.source)
    defaults = {"embed_dims": (64, 128, 256, 512), "depths": (3, 4, 6, 3), "mlp_ratios": mlp_ratios}
    named = ARCHS[variant[1]] if variant else defaults
    given = {key: tuple(case.built_with.get(key, default)) for key, default in named.items()}
    return {key: value + tuple(named[key][len(value) :]) for key, value in given.items()}


def _dims(case: Case) -> int:
    return int(next(value for key, value in case.built_with.items() if key in ("dim", "d_model")))


@adapter("van", r"Classification\S* .*van\.py VAN|van\.py van_")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    eps = re.search(r"eps\D*([\d.e-]+)", str(case.built_with.get("norm_layer", "")))
    model = VANClassifier(
        _case_arch(case, (4, 4, 4, 4)),
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=case.built_with.get("in_chans", 3),
        norm_eps=float(eps[1]) if eps else 1e-6 if "van_b" in case.source else 1e-5,
    )
    return run_classifier(model, case)


@adapter("van", r"van\.py VAN")
def _run_dense(case: Case) -> dict[str, Tensor]:
    model = VAN(
        _case_arch(case, (8, 8, 4, 4)),
        in_channels=case.built_with.get("in_chans", 3),
        linear=case.built_with.get("linear", False),
        out_indices=range(case.built_with.get("num_stages", len(STRIDES))),
    )
    return run_backbone(model, case)


@adapter("van", r"van\.py Block\b")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    """A block on a map or, as the segmentors' block takes it, on tokens."""
    built_with = case.built_with
    block = Block(_dims(case), built_with.get("mlp_ratio", 4.0), linear=built_with.get("linear", False))
    x = next(iter(case.inputs().values()))
    if x.ndim == 4:
        return run_module(block, case)
    place(block.eval(), case.state_dict())
    out = block(x.transpose(1, 2).unflatten(2, map_size(case, x.shape[1])))
    return only_output(case, out.flatten(2).transpose(1, 2))


@adapter("van", r"van\.py (Spatial)?Attention\b")
@torch.no_grad()
def _run_attention(case: Case) -> dict[str, Tensor]:
    attention = Attention(_dims(case))
    outputs = run_module(attention, case)
    return {**outputs, "lka": attention.spatial_gating_unit(only_input(case))}


@adapter("van", r"van\.py (LKA|AttentionModule)\b")
@torch.no_grad()
def _run_large_kernel_attention(case: Case) -> dict[str, Tensor]:
    attention = LargeKernelAttention(_dims(case))
    outputs = run_module(attention, case)
    return {**outputs, "attn": attention.attention(only_input(case))}


@adapter("van", r"van\.py Mlp\b")
def _run_mlp(case: Case) -> dict[str, Tensor]:
    dim = case.built_with["in_features"]
    hidden_dim = case.built_with.get("hidden_features") or dim
    return run_module(Mlp(dim, hidden_dim, linear=case.built_with.get("linear", False)), case)


@adapter("van", r"van\.py OverlapPatchEmbed")
def _run_patch_embed(case: Case) -> dict[str, Tensor]:
    dim, in_channels, kernel_size, _ = case.shapes["proj.weight"]
    stride = case.built_with.get("stride", 4)
    outputs = run_module(PatchEmbed(in_channels, dim, kernel_size=kernel_size, stride=stride), case)
    if "Segmentation" not in case.source:
        return outputs
    return {name: x.flatten(2).transpose(1, 2) for name, x in outputs.items()}  # as tokens there
