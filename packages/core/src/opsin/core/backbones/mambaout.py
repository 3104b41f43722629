"""MambaOut: Do We Really Need Mamba for Vision? (arXiv 2405.07992, CVPR 2025).

Authors' code: yuweihao/MambaOut, Apache-2.0.

Mamba's block without its state-space model: a gated CNN block with one expansion to gate and value, a
depth-wise 7x7 convolution of part of the value, and one projection. Image (N, 3, H, W) to maps of strides
4, 8, 16, 32 and widths `dims`; every strided convolution rounds up, so any size goes through. Between stem
and head everything is channels-last, (N, H, W, C).

What a naive reading gets wrong: the hidden width is int(8 / 3 * C), of which only `conv_ratio` * C channels
are convolved, the rest passes untouched; the activation is on the gate alone and nothing is on the
convolved part; a block has one residual and no perceptron besides; norms come after the strided
convolutions, not before as in ConvNeXt; the head has a second norm, after its activation.

Dense use is not published. Here each map that leaves the network has a norm of its own and goes on without
it, as in ConvNeXt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, cat, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.cases import run_backbone, run_classifier, run_module, set_activation
from opsin.core.backbones.numbered_stages import STRIDES, stage_settings
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

EPS = 1e-6
EXPANSION = 8 / 3
Arch = Mapping[str, Sequence[int]]
ARCHS: dict[str, Arch] = {
    "femto": {"depths": (3, 3, 9, 3), "dims": (48, 96, 192, 288)},
    "kobe": {"depths": (3, 3, 15, 3), "dims": (48, 96, 192, 288)},
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 576)},
    "small": {"depths": (3, 4, 27, 3), "dims": (96, 192, 384, 576)},
    "base": {"depths": (3, 4, 27, 3), "dims": (128, 256, 512, 768)},
}


@MODELS.register_module()
class GatedCNNBlock(nn.Module):
    """Norm, expansion to gate and value, depth-wise convolution of a part of the value, gating, projection.

    Args:
        dim: channels C.
        expansion_ratio: hidden width h over C.
        kernel_size: side of the convolution's kernel, odd.
        conv_ratio: convolved channels of the value over C.
        drop_path_rate: chance of dropping the branch of a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        *,
        expansion_ratio: float = EXPANSION,
        kernel_size: int = 7,
        conv_ratio: float = 1.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        hidden, convolved = int(expansion_ratio * dim), int(conv_ratio * dim)
        self.parts = (hidden, hidden - convolved, convolved)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.act = nn.GELU()
        self.conv = nn.Conv2d(convolved, convolved, kernel_size, padding=kernel_size // 2, groups=convolved)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        gate, untouched, convolved = self.fc1(self.norm(x)).split(self.parts, dim=-1)
        convolved = self.conv(convolved.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.fc2(self.act(gate) * cat((untouched, convolved), dim=-1))
        return x + self.drop_path(y)


class Stem(nn.Module):
    """Two strided 3x3 convolutions, each with a norm, a GELU between them: stride 4.

    Args:
        in_channels: channels of the image.
        dim: channels out, C; half of them in between.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, dim // 2, 3, 2, padding=1)
        self.norm1 = nn.LayerNorm(dim // 2, eps=EPS)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, 2, padding=1)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Image (N, 3, H, W) to (N, ⌈H / 4⌉, ⌈W / 4⌉, C)."""
        x = self.act(self.norm1(self.conv1(x).permute(0, 2, 3, 1)))
        return self.norm2(self.conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, then a norm.

    Args:
        in_channels: channels in.
        dim: channels out, C.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 3, 2, padding=1)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C_in) to (N, ⌈H / 2⌉, ⌈W / 2⌉, C)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class MlpHead(nn.Module):
    """Linear to four times the width, GELU, norm, dropout, linear to the classes.

    Args:
        dim: width C of the features.
        num_classes: logits.
        dropout: dropout rate.
    """

    def __init__(self, dim: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(4 * dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(4 * dim, num_classes)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) to logits (N, num_classes)."""
        return self.fc2(self.dropout(self.norm(self.act(self.fc1(x)))))


def _downsample_layers(in_channels: int, dims: Sequence[int]) -> nn.ModuleList:
    between = [Downsample(narrow, wide) for narrow, wide in pairwise(dims)]
    return nn.ModuleList([Stem(in_channels, dims[0]), *between])


def _stages(settings: Arch, *, conv_ratio: float, kernel_size: int, drop_path_rate: float) -> nn.ModuleList:
    """One sequence of blocks a stage; the drop path rate grows linearly over all blocks."""
    rates = drop_path_rates(drop_path_rate, settings["depths"])
    return nn.ModuleList(
        nn.Sequential(
            *(
                GatedCNNBlock(dim, kernel_size=kernel_size, conv_ratio=conv_ratio, drop_path_rate=rate)
                for rate in stage_rates
            )
        )
        for dim, stage_rates in zip(settings["dims"], rates, strict=True)
    )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _layer_depth(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Layer of a parameter and number of layers: the stem, every block, the head.

    Downsampling goes with the block after it, norms outside the stages with the head. The authors decay no
    rates by layer; this is the grouping of other hierarchical networks.
    """
    last = sum(depths) + 1
    part = re.match(r"(downsample_layers|stages)\.(\d)\.(\d*)", name)
    if part is None:
        return last, last + 1
    stage = int(part[2])
    if part[1] == "downsample_layers":
        return (sum(depths[:stage]) + 1 if stage else 0), last + 1
    return sum(depths[:stage]) + int(part[3]) + 1, last + 1


@MODELS.register_module()
class MambaOut(Backbone):
    """The four stages for dense tasks; stages after the last output are not built.

    Args:
        arch: 'femto', 'kobe', 'tiny', 'small', 'base', or dict(depths=…, dims=…) with four numbers each.
        in_channels: channels of the image.
        conv_ratio: convolved channels of a block's value over the stage's width.
        kernel_size: side of the blocks' kernels.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_norm: whether each output has a LayerNorm of its own, `norm0` … `norm3`.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Arch = "tiny",
        *,
        in_channels: int = 3,
        conv_ratio: float = 1.0,
        kernel_size: int = 7,
        drop_path_rate: float = 0.0,
        out_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = stage_settings("MambaOut", ARCHS, arch)
        self.check_out_indices(len(STRIDES))
        self.depths, dims, built = settings["depths"], settings["dims"], self.out_indices[-1] + 1
        self.downsample_layers = _downsample_layers(in_channels, dims[:built])
        # the rates are those of the whole network, whatever part of it is built
        self.stages = _stages(
            settings, conv_ratio=conv_ratio, kernel_size=kernel_size, drop_path_rate=drop_path_rate
        )[:built]
        for index in self.out_indices:
            norm = nn.LayerNorm(dims[index], eps=EPS) if out_norm else nn.Identity()
            self.add_module(f"norm{index}", norm)
        self.feature_info = tuple(FeatureInfo(dims[index], STRIDES[index]) for index in self.out_indices)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`, channels-last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for index, (downsample, blocks) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            for block in blocks.children():
                x = self.run(block, x)
            if index in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2))
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4) with the downsampling before it and the norm of its map."""
        if stage == 0:
            return [self.downsample_layers[0]]
        index = stage - 1
        if index >= len(self.stages):
            return []
        parts = [self.stages[index], self.downsample_layers[index]]
        return parts + ([self.get_submodule(f"norm{index}")] if index in self.out_indices else [])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, every block, the norms of the outputs."""
        return _layer_depth(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file (the authors' or timm's), or of a whole detector's or segmentor's.

        Heads and whatever lies beyond `out_indices` are dropped; the norms of the outputs, which no
        classifier has, stay as they are.
        """
        later = "|".join(str(index) for index in range(len(self.stages), len(STRIDES)))
        unused = rf"^(head|norm\d?|(downsample_layers|stages)\.({later}))\."
        return fit(self.state_dict(), _authors_names(tensors), fresh=r"^norm\d\.", unused=unused)


@MODELS.register_module()
class MambaOutClassifier(Classifier):
    """The published classifier: four stages, global mean, norm, head of two layers.

    Args:
        arch, in_channels, conv_ratio, kernel_size, drop_path_rate: as for `MambaOut`.
        num_classes: logits; 0 for no head.
        head_dropout: dropout rate in the head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Arch = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        conv_ratio: float = 1.0,
        kernel_size: int = 7,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = stage_settings("MambaOut", ARCHS, arch)
        self.depths, self.num_features = settings["depths"], settings["dims"][-1]
        self.head_dropout = head_dropout
        self.downsample_layers = _downsample_layers(in_channels, settings["dims"])
        self.stages = _stages(
            settings, conv_ratio=conv_ratio, kernel_size=kernel_size, drop_path_rate=drop_path_rate
        )
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for downsample, blocks in zip(self.downsample_layers, self.stages, strict=True):
            x = downsample(x)
            for block in blocks.children():
                x = self.run(block, x)
        return self.norm(x.mean((1, 2)))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the whole head, both layers, by a freshly initialised one (0 classes: none)."""
        self.num_classes = num_classes
        head = MlpHead(self.num_features, num_classes, dropout=self.head_dropout) if num_classes else None
        self.head = head or nn.Identity()

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, every block, norm and head."""
        return _layer_depth(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors or timm to those of this network."""
        return _authors_names(tensors)


# timm's names of the same tensors
_RENAMES = (
    (r"^stem\.", r"downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"^head\.norm\.", r"norm."),
    (r"^head\.pre_logits\.fc\.", r"head.fc1."),
    (r"^head\.pre_logits\.norm\.", r"head.norm."),
    (r"^head\.fc\.", r"head.fc2."),
)


def _authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names; both layouts have a `head.norm`, but only timm's has a `stem`."""
    tensors = backbone_of(tensors)
    if not any(name.startswith("stem.") for name in tensors):
        return tensors
    renamed = {}
    for name, tensor in tensors.items():
        pattern, replacement = next((r for r in _RENAMES if re.match(r[0], name)), ("", ""))
        renamed[re.sub(pattern, replacement, name, count=1)] = tensor
    return renamed


register_models(
    "mambaout", MambaOutClassifier, {f"mambaout_{arch}": {"arch": arch} for arch in ARCHS}, backbone=MambaOut
)


def _case_settings(case: Case) -> dict[str, Any]:
    """The case's arguments, where it gives none those of the named variant, or the class's (tiny's)."""
    variant = re.search(r"mambaout_([a-z]+)", case.source)
    named = ARCHS[variant[1] if variant else "tiny"]
    built_with = case.built_with
    return {
        "arch": {key: built_with.get(key, default) for key, default in named.items()},
        "in_channels": built_with.get("in_chans", 3),
        "conv_ratio": built_with.get("conv_ratio", 1.0),
        "kernel_size": built_with.get("kernel_size", 7),
    }


@adapter("mambaout", r"mambaout\.py GatedCNNBlock")
def _run_block(case: Case) -> dict[str, Tensor]:
    names = ("expansion_ratio", "kernel_size", "conv_ratio")
    settings = {name: case.built_with[name] for name in names if name in case.built_with}
    block = GatedCNNBlock(case.built_with["dim"], **settings)
    set_activation(block, case)
    return run_module(block, case)


@adapter("mambaout", r"mambaout\.py Stem")
def _run_stem(case: Case) -> dict[str, Tensor]:
    return run_module(Stem(case.shapes["conv1.weight"][1], case.shapes["conv2.weight"][0]), case)


@adapter("mambaout", r"mambaout\.py Downsampl")
def _run_downsample(case: Case) -> dict[str, Tensor]:
    dim, in_channels, *_ = case.shapes["conv.weight"]
    return run_module(Downsample(in_channels, dim), case)


@adapter("mambaout", r"mambaout\.py MlpHead")
def _run_head(case: Case) -> dict[str, Tensor]:
    return run_module(MlpHead(case.shapes["fc1.weight"][1], case.shapes["fc2.weight"][0]), case)


@adapter("mambaout", r"mambaout\.py (MambaOut|mambaout_).*stages\[")
def _run_stages(case: Case) -> dict[str, Tensor]:
    backbone = MambaOut(**_case_settings(case), out_norm=False)
    set_activation(backbone.stages, case)
    return run_backbone(backbone, case)


@adapter("mambaout", r"mambaout\.py (MambaOut|mambaout_)")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = MambaOutClassifier(**_case_settings(case), num_classes=case.built_with.get("num_classes", 1000))
    set_activation(model.stages, case)
    return run_classifier(model, case)
