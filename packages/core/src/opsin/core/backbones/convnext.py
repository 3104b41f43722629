"""ConvNeXt: A ConvNet for the 2020s (arXiv 2201.03545, CVPR 2022; code facebookresearch/ConvNeXt, MIT).

A purely convolutional backbone with the macro-design of a Swin Transformer. Image (N, 3, H, W) to maps of
strides 4, 8, 16, 32 with widths `dims`; every strided convolution floors, so any size from 32 on a side goes
through. The isotropic form is one stage at stride 16, a convolutional relative of ViT.

What a naive reading gets wrong: the stem normalises after its convolution, the other downsampling layers
before theirs; the classifier normalises the pooled vector, while the dense form normalises each map that
leaves the network but passes the map without that norm on to the next stage; GELU is the exact one and every
epsilon is 1e-6.

Maps travel in the channels-last memory format. The depth-wise convolution is faster there, most of all
backwards (on one CPU core a training step of a 56x56 block takes 0.65 of the time), and the permutes around
the norm and the linear layers become views.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.cases import run_backbone, run_classifier, run_module
from opsin.core.errors import UserError, unknown
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS

EPS = 1e-6
STRIDES = (4, 8, 16, 32)
ARCHS: dict[str, dict[str, Sequence[int]]] = {
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048)},
}
ISOTROPIC_ARCHS: dict[str, dict[str, Any]] = {
    "small": {"depth": 18, "dim": 384, "layer_scale_init_value": 0.0},
    "base": {"depth": 18, "dim": 768, "layer_scale_init_value": 0.0},
    "large": {"depth": 36, "dim": 1024, "layer_scale_init_value": 1e-6},
}


class Block(nn.Module):
    """Depth-wise 7x7, norm, 1x1 expansion by four, GELU, 1x1 projection, layer scale; residual.

    Args:
        dim: channels C.
        drop_path_rate: chance of dropping the branch of a sample, in [0, 1).
        layer_scale_init_value: what `gamma` (C,) begins with; 0 leaves layer scale out.
    """

    def __init__(self, dim: int, drop_path_rate: float = 0.0, layer_scale_init_value: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scaled = layer_scale_init_value > 0
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if scaled else None
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        if self.gamma is not None:
            y = y * self.gamma
        return x + self.drop_path(y.permute(0, 3, 1, 2))


def _downsample_layers(in_channels: int, dims: Sequence[int]) -> nn.ModuleList:
    stem = nn.Sequential(nn.Conv2d(in_channels, dims[0], 4, stride=4), LayerNorm2d(dims[0], eps=EPS))
    between = [
        nn.Sequential(LayerNorm2d(narrow, eps=EPS), nn.Conv2d(narrow, wide, 2, stride=2))
        for narrow, wide in pairwise(dims)
    ]
    return nn.ModuleList([stem, *between])


def _stages(
    depths: Sequence[int], dims: Sequence[int], drop_path_rate: float, layer_scale_init_value: float
) -> nn.ModuleList:
    """One sequence of blocks a stage; the drop path rate grows linearly over all blocks."""
    return nn.ModuleList(
        nn.Sequential(*(Block(dim, rate, layer_scale_init_value) for rate in rates))
        for dim, rates in zip(dims, drop_path_rates(drop_path_rate, depths), strict=True)
    )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _depths_and_dims(arch: str | Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Depths and widths of the four stages.

    Raises:
        UserError: if the name is unknown or the mapping does not give four of each.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise unknown("ConvNeXt arch", arch, ARCHS)
        arch = ARCHS[arch]
    if set(arch) != {"depths", "dims"} or any(len(arch[key]) != len(STRIDES) for key in arch):
        raise UserError(f"ConvNeXt arch {dict(arch)} is not dict(depths=four numbers, dims=four numbers)")
    return tuple(arch["depths"]), tuple(arch["dims"])


def _block_group(name: str, last: int) -> int:
    """The layer-decay group of a parameter, three blocks of stage 2 a group; `last` is that of stage 3.

    Parameters outside stem and stages come after: `last` + 1.
    """
    part, _, rest = name.partition(".")
    if part == "downsample_layers":
        return (0, 2, 3, last)[int(rest.split(".")[0])]
    if part == "stages":
        stage, block = (int(number) for number in rest.split(".")[:2])
        return (1, 2, 3 + block // 3, last)[stage]
    return last + 1


def _stage_group(name: str, last: int) -> int:
    """The same with all downsampling layers in group 0 and every stage one group (ADE20K recipes)."""
    part, _, rest = name.partition(".")
    if part == "downsample_layers":
        return 0
    return int(rest.split(".")[0]) + 1 if part == "stages" else last + 1


@MODELS.register_module()
class ConvNeXt(Backbone):
    """The feature extractor of the authors' detection and segmentation code.

    Each output has a LayerNorm of its own, `norm0` … `norm3`; stages after the last output are not built.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'xlarge', or dict(depths=…, dims=…) with four numbers each.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: what every `gamma` begins with; 0 for no layer scale.
        out_indices: stages that give a map.
        layer_groups: how layer-wise learning-rate decay groups parameters: 'block' splits the third stage
            every three blocks (COCO recipes), 'stage' takes one rate a stage (ADE20K recipes).
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = "tiny",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        layer_groups: Literal["block", "stage"] = "block",
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        depths, dims = _depths_and_dims(arch)
        if not self.out_indices or not set(self.out_indices) <= set(range(len(STRIDES))):
            raise UserError(f"out_indices {self.out_indices} of ConvNeXt must name stages 0 to 3")
        if layer_groups not in ("block", "stage"):
            raise unknown("layer_groups", layer_groups, ("block", "stage"))
        built = max(self.out_indices) + 1
        self.layer_groups = layer_groups
        self.last_group = 3 + -(-depths[2] // 3)
        self.downsample_layers = _downsample_layers(in_channels, dims[:built])
        # the rates are those of the whole network, whatever part of it is built
        self.stages = _stages(depths, dims, drop_path_rate, layer_scale_init_value)[:built]
        for index in self.out_indices:
            self.add_module(f"norm{index}", LayerNorm2d(dims[index], eps=EPS))
        self.feature_info = tuple(FeatureInfo(dims[index], STRIDES[index]) for index in self.out_indices)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for index, (downsample, blocks) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            for block in blocks.children():
                x = self.run(block, x)
            if index in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x))
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4) with the downsampling before it and the norm of its map."""
        if stage == 0:
            return [self.downsample_layers[0]]
        index = stage - 1
        if index >= len(self.stages):
            return []
        parts = [self.stages[index]] + ([self.downsample_layers[index]] if index else [])
        return parts + ([self.get_submodule(f"norm{index}")] if index in self.out_indices else [])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers (8 for tiny, 14 for larger), as `layer_groups` says."""
        group = _block_group if self.layer_groups == "block" else _stage_group
        return group(name.removeprefix(prefix), self.last_group), self.last_group + 2

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a published file to those of this backbone.

        Takes classifiers and dense models of the authors, timm and mmpretrain, and whole detectors and
        segmentors. Heads and whatever lies beyond `out_indices` are dropped; norms of outputs that the file
        does not have (no classifier has them all) stay as they are.
        """
        norms = {name: tensor for name, tensor in self.state_dict().items() if name.startswith("norm")}
        used = {
            name: tensor for name, tensor in _authors_names(tensors).items() if not self._leaves_out(name)
        }
        return {**norms, **used}

    def _leaves_out(self, name: str) -> bool:
        if re.match(r"(norm|head)\.", name):
            return True
        part = re.match(r"(norm|downsample_layers\.|stages\.)(\d+)\.", name)
        if part is None:
            return False
        index = int(part[2])
        return index not in self.out_indices if part[1] == "norm" else index >= len(self.stages)


@MODELS.register_module()
class ConvNeXtClassifier(Classifier):
    """The published classifier: four stages, global mean, norm, linear head.

    Args:
        arch: as for `ConvNeXt`.
        num_classes: logits; 0 for no head.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: what every `gamma` begins with; 0 for no layer scale.
        head_init_scale: factor on the head's initial weights (0.001 for fine-tuning).
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        depths, dims = _depths_and_dims(arch)
        self.last_group = max(12, 3 + -(-depths[2] // 3))
        self.num_features = dims[-1]
        self.downsample_layers = _downsample_layers(in_channels, dims)
        self.stages = _stages(depths, dims, drop_path_rate, layer_scale_init_value)
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)
        _scale(self.head, head_init_scale)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for downsample, blocks in zip(self.downsample_layers, self.stages, strict=True):
            x = downsample(x)
            for block in blocks.children():
                x = self.run(block, x)
        return self.norm(x.mean((2, 3)))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: 14 for every published variant, tiny included."""
        return _block_group(name.removeprefix(prefix), self.last_group), self.last_group + 2

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors, timm or mmpretrain to those of this network."""
        return {
            re.sub(r"^norm3\.", "norm.", name): tensor for name, tensor in _authors_names(tensors).items()
        }


@MODELS.register_module()
class ConvNeXtIsotropic(Classifier):
    """The isotropic classifier: 16x16 patches, blocks of one width, global mean, norm, linear head.

    Args:
        arch: 'small', 'base', 'large', or dict(depth=…, dim=…, layer_scale_init_value=…); without the last
            there is no layer scale.
        num_classes, in_channels, drop_path_rate, head_init_scale: as for `ConvNeXtClassifier`.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        head_init_scale: float = 1.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        if isinstance(arch, str):
            if arch not in ISOTROPIC_ARCHS:
                raise unknown("ConvNeXtIsotropic arch", arch, ISOTROPIC_ARCHS)
            arch = ISOTROPIC_ARCHS[arch]
        dim, depth = arch["dim"], arch["depth"]
        self.num_features = dim
        self.stem = nn.Conv2d(in_channels, dim, 16, stride=16)
        layer_scale = arch.get("layer_scale_init_value", 0.0)
        self.blocks = _stages((depth,), (dim,), drop_path_rate, layer_scale)[0]
        self.last_group = depth + 1
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)
        _scale(self.head, head_init_scale)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks.children():
            x = self.run(block, x)
        return self.norm(x.mean((2, 3)))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each block, norm and head.

        The authors give no decay for this form; this is the grouping that vision transformers use.
        """
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part == "blocks":
            return int(rest.split(".")[0]) + 1, self.last_group + 1
        return 0 if part == "stem" else self.last_group, self.last_group + 1


def _scale(head: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(factor)


# timm's and mmpretrain's names of the same tensors
_RENAMES = (
    (r"^stem\.(\d)\.", r"downsample_layers.0.\1."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"\.(conv_dw|depthwise_conv)\.", r".dwconv."),
    (r"\.(mlp\.fc|pointwise_conv)([12])\.", r".pwconv\2."),
    (r"^head\.norm\.", r"norm."),
    (r"^head\.fc\.", r"head."),
)


def _authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names, whichever library's layout they come in.

    Of a whole OpenMMLab model the backbone and a classifier's `head.fc` are kept. The 1x1 convolutions of
    implementations that stay channels-first become the linear layers that they are.
    """
    renamed = {}
    for name, tensor in backbone_of(tensors, "head.fc.").items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        is_1x1 = re.search(r"\.pwconv[12]\.weight$", name) is not None and tensor.ndim == 4
        renamed[name] = tensor.flatten(1) if is_1x1 else tensor
    return renamed


register_models(
    "convnext", ConvNeXtClassifier, {f"convnext_{arch}": {"arch": arch} for arch in ARCHS}, backbone=ConvNeXt
)
register_models(
    "convnext", ConvNeXtIsotropic, {f"convnext_iso_{arch}": {"arch": arch} for arch in ISOTROPIC_ARCHS}
)


def _layer_scale(case: Case, default: float) -> float:
    """The case's initial layer scale, which matters only by being zero (no gamma) or not."""
    return float(case.built_with.get("layer_scale_init_value", default) or 0.0)


def _hierarchical_arch(case: Case) -> dict[str, Sequence[int]]:
    factory = re.search(r"convnext_(\w+)", case.source.split(".py", 1)[-1])
    named = ARCHS[factory[1] if factory else "tiny"]
    return {key: case.built_with.get(key, named[key]) for key in ("depths", "dims")}


@adapter("convnext", r"convnext\.py Block")
def _run_block(case: Case) -> dict[str, Tensor]:
    return run_module(Block(case.built_with["dim"], layer_scale_init_value=_layer_scale(case, 1e-6)), case)


@adapter("convnext", r"models/convnext\.py (ConvNeXt|convnext_)")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = ConvNeXtClassifier(
        _hierarchical_arch(case),
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=case.built_with.get("in_chans", 3),
        layer_scale_init_value=_layer_scale(case, 1e-6),
    )
    return run_classifier(model, case)


@adapter("convnext", r"convnext_isotropic\.py ")
def _run_isotropic(case: Case) -> dict[str, Tensor]:
    factory = re.search(r"convnext_isotropic_(\w+)", case.source)
    named = ISOTROPIC_ARCHS[factory[1] if factory else "small"]
    arch = {key: case.built_with.get(key, named[key]) for key in ("depth", "dim")}
    model = ConvNeXtIsotropic(
        {**arch, "layer_scale_init_value": _layer_scale(case, 0.0)},
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=case.built_with.get("in_chans", 3),
    )
    return run_classifier(model, case)


@adapter("convnext", r"backbones?/convnext\.py ConvNeXt")
def _run_dense(case: Case) -> dict[str, Tensor]:
    model = ConvNeXt(
        _hierarchical_arch(case),
        in_channels=case.built_with.get("in_chans", 3),
        layer_scale_init_value=_layer_scale(case, 1e-6),
        out_indices=case.built_with.get("out_indices", (0, 1, 2, 3)),
    )
    return run_backbone(model, case)
