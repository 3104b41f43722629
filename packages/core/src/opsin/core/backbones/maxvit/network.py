"""MaxViT's blocks, its feature extractor and its classifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, resolve_arch
from opsin.core.backbones.maxvit.attention import MultiAxisAttention
from opsin.core.backbones.maxvit.mbconv import MbConv, Stem
from opsin.core.errors import UserError
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"stem_width": 64, "depths": (2, 2, 5, 2), "embed_dims": (64, 128, 256, 512)},
    "small": {"stem_width": 64, "depths": (2, 2, 5, 2), "embed_dims": (96, 192, 384, 768)},
    "base": {"stem_width": 64, "depths": (2, 6, 14, 2), "embed_dims": (96, 192, 384, 768)},
    "large": {"stem_width": 128, "depths": (2, 6, 14, 2), "embed_dims": (128, 256, 512, 1024)},
    "xlarge": {"stem_width": 192, "depths": (2, 6, 14, 2), "embed_dims": (192, 384, 768, 1536)},
}
TABLE = "relative_position_bias_table"


class Block(nn.Module):
    """An MBConv (`conv`), attention in windows (`attn_block`), attention on the grid (`attn_grid`).

    Args:
        in_channels: channels in.
        dim: channels out.
        stride: of the MBConv.
        window: rows and columns of a window.
        grid: rows and columns of the grid.
        drop_path_rate: rate of all five branches.
        head_dim: width of an attention head.
        expand_ratio: width of MBConv and perceptrons in units of `dim`.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        stride: int,
        *,
        window: int | Sequence[int] = 7,
        grid: int | Sequence[int] = 7,
        drop_path_rate: float = 0.0,
        head_dim: int = 32,
        expand_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.conv = MbConv(in_channels, dim, stride, drop_path_rate=drop_path_rate, expand_ratio=expand_ratio)
        attention = partial(
            MultiAxisAttention,
            dim,
            head_dim=head_dim,
            drop_path_rate=drop_path_rate,
            mlp_ratio=expand_ratio,
        )
        self.attn_block = attention("block", window)
        self.attn_grid = attention("grid", grid)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.attn_grid(self.attn_block(x)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width; the first halves the map."""

    def __init__(self, in_channels: int, dim: int, rates: Sequence[float], **block: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim if index else in_channels, dim, 1 if index else 2, drop_path_rate=rate, **block)
            for index, rate in enumerate(rates)
        )


def _resolve(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `arch`.

    Raises:
        UserError: if it is unknown, or depths and widths are not given for the same stages.
    """
    settings = resolve_arch("MaxViT", ARCHS, arch)
    depths, dims = settings["depths"], settings["embed_dims"]
    if len(depths) != len(dims) or not depths:
        raise UserError(f"depths {depths} and embed_dims {dims} of MaxViT differ in number of stages")
    return settings


def _stages(settings: Mapping[str, Any], drop_path_rate: float, **block: Any) -> nn.ModuleList:
    """All stages; the drop path rate grows by the same step from block to block, from 0."""
    depths, dims = settings["depths"], settings["embed_dims"]
    step = drop_path_rate / sum(depths)
    return nn.ModuleList(
        Stage(
            dims[stage - 1] if stage else settings["stem_width"],
            dim,
            [step * (sum(depths[:stage]) + index) for index in range(depth)],
            **block,
        )
        for stage, (depth, dim) in enumerate(zip(depths, dims, strict=True))
    )


def _init_weights(module: nn.Module, *, bn_momentum: float) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = bn_momentum
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Layer of a parameter and number of layers: the stem, each block, what follows them."""
    last = sum(depths) + 1
    block = re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name)
    if block is not None:
        return sum(depths[: int(block[1])]) + int(block[2]) + 1, last + 1
    return (0 if name.startswith("stem.") else last), last + 1


def _tables(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith(TABLE)}


_RENAMES = (
    (r"^head\.norm\.", "norm."),
    (r"^head\.pre_logits\.fc\.", "pre_logits."),
    (r"^head\.fc\.", "head."),
)


def _converted(tensors: Tensors, own: Tensors) -> Tensors:
    """A file's tensors under our names, bias tables resized to our windows as the authors resize them."""
    converted = {}
    for name, tensor in backbone_of(tensors).items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith(TABLE) and name in own and tensor.ndim == 3 and len(tensor) == len(own[name]):
            size = own[name].shape[1:]
            if tensor.shape[1:] != size:
                tensor = F.interpolate(tensor[None], size=size, mode="bilinear", align_corners=False)[0]
        converted[name] = tensor
    return converted


@MODELS.register_module()
class MaxViT(Backbone):
    """The feature extractor: the maps that the stages end with.

    Stages after the last output are not built. A file for other windows loads too: its bias tables are
    resized.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'xlarge', or dict(stem_width=…, depths=…, embed_dims=…).
        in_channels: channels of the image.
        window_size: side, or rows and columns, of windows; published are 7, 12 and 16 for images of 224, 384
            and 512 pixels.
        grid_size: the same of the grid; None for that of windows.
        head_dim: width of an attention head.
        drop_path_rate: rate r; block number b of n drops branches with the rate r * b / n.
        expand_ratio: width of MBConvs and perceptrons in units of a stage's.
        bn_momentum: how fast running statistics of batch norms follow; the published 0.01 takes some hundred
            steps, so a short training wants more.
        out_norm: whether each output has a LayerNorm of its own, `norm0` … `norm3`. The authors published no
            dense model; detectors and segmentors train more evenly with it.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, windows below 1, widths that heads do not divide, or `out_indices`
            that are no ascending stages.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        in_channels: int = 3,
        window_size: int | Sequence[int] = 7,
        grid_size: int | Sequence[int] | None = None,
        head_dim: int = 32,
        drop_path_rate: float = 0.0,
        expand_ratio: float = 4.0,
        bn_momentum: float = 0.01,
        out_norm: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = _resolve(arch)
        self.depths, dims = settings["depths"], settings["embed_dims"]
        self.check_out_indices(len(dims))
        self.stem = Stem(in_channels, settings["stem_width"])
        # the rates are those of the whole network, whatever part of it is built
        self.stages = _stages(
            settings,
            drop_path_rate,
            window=window_size,
            grid=window_size if grid_size is None else grid_size,
            head_dim=head_dim,
            expand_ratio=expand_ratio,
        )[: self.out_indices[-1] + 1]
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(dims[index]) if out_norm else nn.Identity())
        self.feature_info = tuple(FeatureInfo(dims[index], 4 * 2**index) for index in self.out_indices)
        self.apply(partial(_init_weights, bn_momentum=bn_momentum))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for index, stage in enumerate(self.stages.children()):
            for block in stage.get_submodule("blocks").children():
                x = self.run(block, x)
            if index in self.out_indices:
                normed = self.get_submodule(f"norm{index}")(x.permute(0, 2, 3, 1))
                maps.append(normed.permute(0, 3, 1, 2))
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (from 1) with the norm of its map."""
        if stage == 0:
            return [self.stem]
        index = stage - 1
        if index >= len(self.stages):
            return []
        norms = [self.get_submodule(f"norm{index}")] if index in self.out_indices else []
        return [self.stages[index], *norms]

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each block, norms of outputs."""
        return _layer(name.removeprefix(prefix), self.depths)

    def no_weight_decay(self) -> set[str]:
        """The bias tables."""
        return _tables(self)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of timm's port of a classifier, or of a whole detector or segmentor, to those of this.

        Heads and whatever lies beyond `out_indices` are dropped; norms of outputs, which a classifier does
        not have, stay as they are; bias tables are resized.
        """
        own = self.state_dict()
        beyond = "|".join(str(stage) for stage in range(len(self.stages), len(self.depths)))
        unused = r"^(norm|norm\d+|pre_logits|head)\." + (rf"|^stages\.({beyond})\." if beyond else "")
        return fit(own, _converted(tensors, own), fresh=r"^norm\d+\.", unused=unused)


@MODELS.register_module()
class MaxViTClassifier(Classifier):
    """The published classifier: stages, mean over positions, norm, a tanh layer, linear head.

    Args:
        arch, in_channels, window_size, grid_size, head_dim: as for `MaxViT`.
        drop_path_rate, expand_ratio, bn_momentum: as for `MaxViT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: as `MaxViT` does.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        window_size: int | Sequence[int] = 7,
        grid_size: int | Sequence[int] | None = None,
        head_dim: int = 32,
        drop_path_rate: float = 0.0,
        expand_ratio: float = 4.0,
        bn_momentum: float = 0.01,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = _resolve(arch)
        self.depths, self.num_features = settings["depths"], settings["embed_dims"][-1]
        self.stem = Stem(in_channels, settings["stem_width"])
        self.stages = _stages(
            settings,
            drop_path_rate,
            window=window_size,
            grid=window_size if grid_size is None else grid_size,
            head_dim=head_dim,
            expand_ratio=expand_ratio,
        )
        self.norm = nn.LayerNorm(self.num_features)
        self.pre_logits = nn.Linear(self.num_features, self.num_features)
        self.apply(partial(_init_weights, bn_momentum=bn_momentum))
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the vector (N, num_features) after the tanh."""
        return self.forward_pool(self.forward_stages(x)[-1])

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to what the stem gives, at stride 2, and what each stage gives."""
        maps = [self.stem(x.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages.children():
            x = maps[-1]
            for block in stage.get_submodule("blocks").children():
                x = self.run(block, x)
            maps.append(x)
        return maps

    def forward_pool(self, x: Tensor) -> Tensor:
        """The last map (N, C, H, W) to the vector (N, C) that the head reads."""
        return self.pre_logits(self.norm(x.mean((2, 3)))).tanh()

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each block, norm and head."""
        return _layer(name.removeprefix(prefix), self.depths)

    def no_weight_decay(self) -> set[str]:
        """The bias tables."""
        return _tables(self)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of timm's port of the authors' files to those of this network; bias tables are resized."""
        return _converted(tensors, self.state_dict())
