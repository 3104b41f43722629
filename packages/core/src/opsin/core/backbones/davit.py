"""DaViT: Dual Attention Vision Transformers (arXiv 2204.03645, ECCV 2022; code dingmyu/davit, MIT).

Image (N, 3, H, W) to maps of strides 4, 8, 16, 32 and widths `embed_dims`. Blocks come in pairs: attention
inside windows, where tokens are positions, then attention among channels, where tokens are the channels of a
group and their features are all positions, so that it sees the whole image at a cost linear in its area.

Inside the network a map is channels-last, (B, H, W, C).

What a naive reading gets wrong: the channel matrix (C/g, C/g) comes from keys and values and is applied to
the queries; it is scaled by the group's width, not by the number of positions. Padding of windows happens
after the norm and without a mask, so padded zeros are keys (through the bias of `qkv`). Positions enter
through depth-wise convolutions alone: no position table, no shifted windows. The stem normalises after its
convolution, the other embeddings before theirs; the classifier normalises the pooled vector. All patch
embeddings round sizes up.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, resolve_arch
from opsin.core.backbones.cases import (
    map_size,
    only_input,
    only_output,
    run_backbone,
    run_classifier,
    run_module,
)
from opsin.core.errors import UserError, unknown
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.weight_init import init_linear
from opsin.core.layers.windows import pad_to_multiple, partition, reverse
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit, place
from opsin.registry import MODELS


def _arch(
    depths: Sequence[int], width: int, window_size: int, *, overlapped_patch: bool = False
) -> dict[str, Any]:
    """Widths double from stage to stage, and every head (or channel group) is 32 wide."""
    embed_dims = [width * 2**stage for stage in range(len(depths))]
    return {
        "depths": depths,
        "embed_dims": embed_dims,
        "num_heads": [dim // 32 for dim in embed_dims],
        "window_size": window_size,
        "overlapped_patch": overlapped_patch,
    }


ARCHS: dict[str, dict[str, Any]] = {
    "tiny": _arch((1, 1, 3, 1), 96, 7),
    "small": _arch((1, 1, 9, 1), 96, 7),
    "base": _arch((1, 1, 9, 1), 128, 7),
    "large": _arch((1, 1, 9, 1), 192, 12),
    "huge": _arch((1, 1, 9, 1), 256, 16, overlapped_patch=True),
    "giant": _arch((1, 1, 12, 3), 384, 16, overlapped_patch=True),
}
ATTENTION_TYPES = ("spatial", "channel")


class ConvPosEnc(nn.Module):
    """Positions from a convolution: a depth-wise 3x3 of the map (`proj`) is added to it.

    Args:
        dim: channels C.
        act: whether a GELU follows the convolution.
    """

    def __init__(self, dim: int, *, act: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.act = nn.GELU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        return x + self.act(self.proj(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """The convolution that opens a stage (`proj`), its LayerNorm (`norm`), and padding that rounds sizes up.

    Args:
        in_channels: channels in.
        dim: channels out.
        patch_size: 4 for the stem, a 7x7 convolution with the norm after it; 2 for the others, which
            normalise first.
        overlapped: whether the kernel of a `patch_size` of 2 has a side of 3 instead of 2.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, *, overlapped: bool = False) -> None:
        super().__init__()
        self.patch_size, self.is_stem = patch_size, patch_size == 4
        kernel_size = 7 if self.is_stem else 3 if overlapped else 2
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, patch_size, (kernel_size - 1) // 2)
        self.norm = nn.LayerNorm(dim if self.is_stem else in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C_in) to (B, ceil(H / patch_size), ceil(W / patch_size), C)."""
        if not self.is_stem:
            x = self.norm(x)
        x = pad_to_multiple(x, (self.patch_size, self.patch_size))
        x = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(x) if self.is_stem else x


class WindowAttention(Attention):
    """Multi-head attention inside square windows; parameters `qkv` and `proj`.

    Args:
        dim: channels C.
        num_heads: heads.
        window_size: side of a window.
        qkv_bias: whether `qkv` has a bias.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, *, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias)
        self.window = (window_size, window_size)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to the same shape; `bias` as for `Attention`."""
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window)
        windows = super().forward(partition(x, self.window), bias)
        return reverse(windows, self.window, (x.shape[1], x.shape[2]))[:, :height, :width]


@MODELS.register_module()
class ChannelGroupAttention(nn.Module):
    """Attention among the channels of each group, over all positions; parameters `qkv` and `proj`.

    Costs grow linearly with the number of positions, and permuting these permutes the result.

    Args:
        dim: channels C.
        groups: groups g of channels; divides `dim`.
        qkv_bias: whether `qkv` has a bias.

    Raises:
        UserError: if `groups` does not divide `dim`.
    """

    def __init__(self, dim: int, groups: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % groups:
            raise UserError(f"{groups} groups do not divide {dim} channels")
        self.groups, self.scale = groups, (dim // groups) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, C) with any axes of positions to the same shape."""
        q, k, v = self.qkv(x.flatten(1, -2)).unflatten(2, (3, self.groups, -1)).permute(2, 0, 3, 1, 4)
        channels = (k.transpose(2, 3) @ v * self.scale).softmax(-1)  # (B, g, C/g, C/g)
        y = q @ channels.transpose(2, 3)
        return self.proj(y.transpose(1, 2).flatten(2)).view(x.shape)


class Block(nn.Module):
    """Position encoding, attention, position encoding, perceptron; all residual.

    Args:
        dim: channels C.
        attn: attention of a map (B, H, W, C).
        mlp_ratio: width of the perceptron in units of C; 0 leaves it out, with its norm.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1); the encodings are never dropped.
        cpe_act: whether a GELU follows the convolutions of the encodings.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        *,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        cpe_act: bool = False,
    ) -> None:
        super().__init__()
        self.cpe = nn.ModuleList(ConvPosEnc(dim, act=cpe_act) for _ in range(2))
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim) if mlp_ratio else None
        self.mlp = Mlp(dim, int(dim * mlp_ratio)) if mlp_ratio else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = self.cpe[0](x)
        x = self.cpe[1](x + self.drop_path(self.attn(self.norm1(x))))
        if self.mlp is None or self.norm2 is None:
            return x
        return x + self.drop_path(self.mlp(self.norm2(x)))


def _block(
    attention_type: str, dim: int, num_heads: int, window_size: int, *, qkv_bias: bool = True, **settings: Any
) -> Block:
    """A block of one of `ATTENTION_TYPES`; `settings` are those of `Block`."""
    attn: nn.Module
    if attention_type == "spatial":
        attn = WindowAttention(dim, num_heads, window_size, qkv_bias=qkv_bias)
    else:
        attn = ChannelGroupAttention(dim, num_heads, qkv_bias=qkv_bias)
    return Block(dim, attn, **settings)


def _resolve(arch: str | Mapping[str, Any], attention_types: Sequence[str]) -> dict[str, Any]:
    """The settings of `arch`, checked.

    Raises:
        UserError: if stages are not given alike, heads do not divide widths, or a type is unknown.
    """
    settings = resolve_arch("DaViT", ARCHS, arch)
    depths, dims, heads = (settings[key] for key in ("depths", "embed_dims", "num_heads"))
    if not len(depths) == len(dims) == len(heads) or not depths:
        raise UserError(
            f"depths {depths}, embed_dims {dims} and num_heads {heads} differ in number of stages"
        )
    for dim, count in zip(dims, heads, strict=True):
        if count < 1 or dim % count:
            raise UserError(f"num_heads {count} of DaViT does not divide a width of {dim}")
    for kind in attention_types:
        if kind not in ATTENTION_TYPES:
            raise unknown("attention type of DaViT", kind, ATTENTION_TYPES)
    if not 1 <= len(attention_types) <= 2:
        raise UserError(f"attention_types {tuple(attention_types)} of DaViT must be one or two names")
    return settings


def _patch_embeds(in_channels: int, settings: Mapping[str, Any]) -> nn.ModuleList:
    widths = [in_channels, *settings["embed_dims"]]
    return nn.ModuleList(
        PatchEmbed(
            widths[stage],
            widths[stage + 1],
            2 if stage else 4,
            overlapped=settings["overlapped_patch"],
        )
        for stage in range(len(widths) - 1)
    )


def _main_blocks(
    settings: Mapping[str, Any], attention_types: Sequence[str], drop_path_rate: float, **block: Any
) -> nn.ModuleList:
    """Stages of pairs of blocks; every block of a pair has its own place among the drop path rates."""
    rates = drop_path_rates(drop_path_rate, [2 * depth for depth in settings["depths"]])
    return nn.ModuleList(
        nn.ModuleList(
            nn.Sequential(
                *(
                    _block(kind, dim, heads, settings["window_size"], drop_path_rate=rate, **block)
                    for kind, rate in zip(attention_types, stage_rates[2 * pair :], strict=False)
                )
            )
            for pair in range(len(stage_rates) // 2)
        )
        for dim, heads, stage_rates in zip(settings["embed_dims"], settings["num_heads"], rates, strict=True)
    )


def _layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Layer of a parameter and number of layers: the stem, each pair of blocks, norms with the head.

    An embedding between stages goes with the pair after it. The authors decay no learning rates; this is the
    grouping that is usual for hierarchical transformers.
    """
    last = sum(depths) + 1
    part, _, rest = name.partition(".")
    if part == "patch_embeds":
        stage = int(rest.split(".")[0])
        return sum(depths[:stage]) + (stage > 0), last + 1
    if part == "main_blocks":
        stage, pair = (int(number) for number in rest.split(".")[:2])
        return sum(depths[:stage]) + pair + 1, last + 1
    return last, last + 1


MMPRETRAIN_DIFFERS = (
    "this file has mmpretrain's names. Its tensors are placed as the authors' and make the authors' network, "
    "not mmpretrain's, whose stem sees the picture two pixels further on and whose classifier norms every "
    "position before the average, the authors the average"
)
# other libraries' names of the same tensors
_TIMM_NAMES = (
    (r"^stem\.conv\.", r"patch_embeds.0.proj."),
    (r"^stem\.norm\.", r"patch_embeds.0.norm."),
    (r"^stages\.(\d+)\.downsample\.conv\.", r"patch_embeds.\1.proj."),
    (r"^stages\.(\d+)\.downsample\.norm\.", r"patch_embeds.\1.norm."),
    (r"^stages\.(\d+)\.blocks\.", r"main_blocks.\1."),
    (r"\.cpe1\.", r".cpe.0."),
    (r"\.cpe2\.", r".cpe.1."),
    (r"^head\.norm\.", r"norms."),
    (r"^head\.fc\.", r"head."),
)
_MMPRETRAIN_NAMES = (
    (r"^patch_embed\.", r"patch_embeds.0."),
    *((rf"^stages\.{stage}\.downsample\.", f"patch_embeds.{stage + 1}.") for stage in range(3)),
    (r"\.projection\.", r".proj."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.spatial_block\.", r"main_blocks.\1.\2.0."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.channel_block\.", r"main_blocks.\1.\2.1."),
    (r"\.cpe1\.", r".cpe.0."),
    (r"\.cpe2\.", r".cpe.1."),
    (r"\.attn\.w_msa\.", r".attn."),
    (r"\.ffn\.layers\.0\.0\.", r".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", r".mlp.fc2."),
    (r"^head\.fc\.", r"head."),
)


def _authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names; of a whole OpenMMLab model those of its backbone and `head`.

    Warns of mmpretrain's files, whose network computes something else with the same weights.
    """
    tensors = backbone_of(tensors, "head.fc.")
    of_mmpretrain = "patch_embed.projection.weight" in tensors
    if of_mmpretrain:
        warnings.warn(MMPRETRAIN_DIFFERS, stacklevel=2)
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _MMPRETRAIN_NAMES if of_mmpretrain else _TIMM_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


@MODELS.register_module()
class DaViT(Backbone):
    """The feature extractor of the authors' detection and segmentation code.

    Each output has a LayerNorm of its own, `norm0` … `norm3`; the map without that norm goes on to the next
    stage. Stages after the last output are not built.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', 'giant', or dict(depths=…, embed_dims=…, num_heads=…,
            window_size=…, overlapped_patch=…), the first three with one number a stage. `depths` counts
            pairs; `num_heads` are the heads of windows and the groups of channels.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        attention_types: the blocks of a pair, in order.
        mlp_ratio: width of perceptrons in units of the stage's; 0 leaves them out.
        qkv_bias: whether queries, keys and values have biases.
        cpe_act: whether a GELU follows the convolutions of the position encodings.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch` or attention type, heads that do not divide a width, or `out_indices`
            that are no ascending stages.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        attention_types: Sequence[str] = ATTENTION_TYPES,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        cpe_act: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = _resolve(arch, attention_types)
        self.depths, dims = settings["depths"], settings["embed_dims"]
        self.check_out_indices(len(dims))
        built = self.out_indices[-1] + 1
        self.patch_embeds = _patch_embeds(in_channels, settings)[:built]
        # the rates are those of the whole network, whatever part of it is built
        self.main_blocks = _main_blocks(
            settings,
            attention_types,
            drop_path_rate,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            cpe_act=cpe_act,
        )[:built]
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(dims[index]))
        self.feature_info = tuple(FeatureInfo(dims[index], 4 * 2**index) for index in self.out_indices)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        x = x.permute(0, 2, 3, 1)
        maps = []
        for index, (embed, pairs) in enumerate(zip(self.patch_embeds, self.main_blocks, strict=True)):
            x = embed(x)
            for pair in pairs.children():
                for block in pair.children():
                    x = self.run(block, x)
            if index in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2))
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (from 1) with the embedding before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embeds[0]]
        index = stage - 1
        if index >= len(self.main_blocks):
            return []
        parts = [self.main_blocks[index]] + ([self.patch_embeds[index]] if index else [])
        return parts + ([self.get_submodule(f"norm{index}")] if index in self.out_indices else [])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each pair of blocks, norms of outputs."""
        return _layer(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a published file to those of this backbone.

        Takes classifiers and dense models of the authors, classifiers of timm and mmpretrain, and whole
        detectors and segmentors. Heads and whatever lies beyond `out_indices` are dropped; norms of outputs,
        which a classifier does not have, stay as they are.
        """
        beyond = "|".join(str(stage) for stage in range(len(self.main_blocks), len(self.depths)))
        unused = r"^(norms|norm\d+|head)\." + (
            rf"|^(patch_embeds|main_blocks)\.({beyond})\." if beyond else ""
        )
        return fit(self.state_dict(), _authors_names(tensors), fresh=r"^norm\d+\.", unused=unused)


@MODELS.register_module()
class DaViTClassifier(Classifier):
    """The published classifier: four stages, mean over positions, norm, linear head.

    Args:
        arch, in_channels, drop_path_rate, attention_types, mlp_ratio, qkv_bias, cpe_act: as for `DaViT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: as `DaViT` does.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        attention_types: Sequence[str] = ATTENTION_TYPES,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        cpe_act: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = _resolve(arch, attention_types)
        self.depths, self.num_features = settings["depths"], settings["embed_dims"][-1]
        self.patch_embeds = _patch_embeds(in_channels, settings)
        self.main_blocks = _main_blocks(
            settings,
            attention_types,
            drop_path_rate,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            cpe_act=cpe_act,
        )
        self.norms = nn.LayerNorm(self.num_features)
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        x = x.permute(0, 2, 3, 1)
        for embed, pairs in zip(self.patch_embeds, self.main_blocks, strict=True):
            x = embed(x)
            for pair in pairs.children():
                for block in pair.children():
                    x = self.run(block, x)
        return self.norms(x.mean((1, 2)))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each pair of blocks, norm and head."""
        return _layer(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors, timm or mmpretrain to those of this network."""
        last = f"norm{len(self.depths) - 1}."  # mmpretrain numbers the final norm
        return {re.sub(rf"^{last}", "norms.", name): t for name, t in _authors_names(tensors).items()}


register_models("davit", DaViTClassifier, {f"davit_{arch}": {"arch": arch} for arch in ARCHS}, backbone=DaViT)


def _network_arguments(case: Case) -> dict[str, Any]:
    """Our constructor's arguments for the authors' `DaViT`, or one of its factories, in a case."""
    given = case.built_with
    factory = re.search(r"davit_(tiny|small|base|large|huge|giant)", case.source, re.IGNORECASE)
    named = ARCHS[factory[1].lower() if factory else "tiny"]
    return {
        "arch": {key: given.get(key, value) for key, value in named.items()},
        "in_channels": given.get("in_chans", 3),
        "drop_path_rate": given.get("drop_path_rate", 0.0),
        "attention_types": given.get("attention_types", ATTENTION_TYPES),
        **_block_arguments(case),
    }


def _block_arguments(case: Case) -> dict[str, Any]:
    given = case.built_with
    return {
        "mlp_ratio": given.get("mlp_ratio", 4.0) if given.get("ffn", True) else 0.0,
        "qkv_bias": any(name.endswith("qkv.bias") for name in case.shapes),
        "cpe_act": given.get("cpe_act", False),
    }


def _as_map(tokens: Tensor, case: Case) -> Tensor:
    """Tokens (B, H * W, C) or an image (B, C, H, W) as a map (B, H, W, C)."""
    if tokens.ndim == 4:
        return tokens.permute(0, 2, 3, 1)
    return tokens.unflatten(1, map_size(case, tokens.shape[1]))


def _tensors(case: Case, prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in case.state_dict().items() if n.startswith(prefix)}


@adapter("davit", r"davit\.py ChannelAttention")
@torch.no_grad()
def _run_channel_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    return run_module(ChannelGroupAttention(given["dim"], given.get("num_heads", 8), **_bias_of(case)), case)


@adapter("davit", r"davit\.py WindowAttention")
@torch.no_grad()
def _run_window_attention(case: Case) -> dict[str, Tensor]:
    # the authors' module gets its windows already cut
    return run_module(Attention(case.built_with["dim"], case.built_with["num_heads"], **_bias_of(case)), case)


def _bias_of(case: Case) -> dict[str, bool]:
    return {"qkv_bias": "qkv.bias" in case.shapes}


@adapter("davit", r"davit\.py (Spatial|Channel)Block")
@torch.no_grad()
def _run_blocks(case: Case) -> dict[str, Tensor]:
    """One block, or several in the order in which the source names them, each under its own prefix."""
    kinds = [kind.lower() for kind in re.findall(r"(Spatial|Channel)Block", case.source)]
    given, x, outputs = case.built_with, _as_map(only_input(case), case), {}
    for kind in kinds:
        block = _block(
            kind, given["dim"], given["num_heads"], given.get("window_size", 7), **_block_arguments(case)
        )
        prefixed = any(name.startswith(f"{kind}.") for name in case.shapes)
        place(block.eval(), _tensors(case, f"{kind}." if prefixed else ""))
        x = block(x)
        outputs[kind] = x.flatten(1, 2)
    return outputs if len(kinds) > 1 else outputs | only_output(case, x.flatten(1, 2))


@adapter("davit", r"davit\.py ConvPosEnc")
@torch.no_grad()
def _run_position_encoding(case: Case) -> dict[str, Tensor]:
    encoding = ConvPosEnc(case.built_with["dim"], act=bool(case.built_with.get("act", False)))
    place(encoding, case.state_dict())
    return only_output(case, encoding(_as_map(only_input(case), case)).flatten(1, 2))


@adapter("davit", r"davit\.py PatchEmbed")
@torch.no_grad()
def _run_patch_embed(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    embed = PatchEmbed(
        given.get("in_chans", 3),
        given.get("embed_dim", 96),
        given["patch_size"],
        overlapped=given.get("overlapped", False),
    )
    place(embed, case.state_dict())
    return only_output(case, embed(_as_map(only_input(case), case)).flatten(1, 2))


@adapter("davit", r"(mmdet|mmseg|backbones?/|detection|segmentation).*davit\.py")
def _run_dense(case: Case) -> dict[str, Tensor]:
    arguments = _network_arguments(case)
    stages = range(len(arguments["arch"]["embed_dims"]))
    return run_backbone(DaViT(**arguments, out_indices=case.built_with.get("out_indices", stages)), case)


@adapter("davit", r"models/davit\.py (DaViT|davit)")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = DaViTClassifier(**_network_arguments(case), num_classes=case.built_with.get("num_classes", 1000))
    return run_classifier(model, case)
