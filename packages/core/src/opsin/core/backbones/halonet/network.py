"""HaloNet's backbone and classifier. Maps travel channels-last, so that a key is contiguous."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier, FeatureInfo, Trunk
from opsin.core.backbones.halonet.attention import HaloAttention
from opsin.core.backbones.halonet.blocks import Bottleneck, ConvBlock, ConvNormAct, HaloBlock
from opsin.core.backbones.halonet.settings import ACTIVATIONS, STEMS, STRIDES, settings_of
from opsin.core.backbones.norm_eval import NormEvalBackbone
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS


def _stem(in_channels: int, settings: Mapping[str, Any]) -> nn.Sequential:
    kernel, widths, last_stride, pools = STEMS[settings["stem"]]
    stem = nn.Sequential()
    for index, width in enumerate(widths, 1):
        stride = 2 if index == 1 else last_stride if index == len(widths) else 1
        act = ACTIVATIONS[settings["act"]]()
        stem.add_module(f"conv{index}", ConvNormAct(in_channels, width, kernel, stride=stride, act=act))
        in_channels = width
    if pools:
        stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
    return stem


def _stages(settings: Mapping[str, Any], drop_path_rate: float, built: int = 4) -> nn.ModuleList:
    """The first `built` stages; rates of stochastic depth are those of all four."""
    in_channels = STEMS[settings["stem"]][1][-1]
    rates = drop_path_rates(drop_path_rate, [len(blocks) for blocks in settings["blocks"]])
    stages = nn.ModuleList()
    for index in range(built):
        stage = nn.Sequential()
        for place_in_stage, kind in enumerate(settings["blocks"][index]):
            stride = 2 if index and not place_in_stage else 1
            rate = rates[index][place_in_stage]
            stage.append(_block(kind, in_channels, index, stride, rate, settings))
            in_channels = settings["out_widths"][index]
        stages.append(stage)
    return stages


def _block(
    kind: str, in_channels: int, stage: int, stride: int, rate: float, settings: Mapping[str, Any]
) -> Bottleneck:
    inner, out = settings["widths"][stage], settings["out_widths"][stage]
    shared: dict[str, Any] = {
        "stride": stride,
        "act": ACTIVATIONS[settings["act"]],
        "drop_path_rate": rate,
    }
    if kind == "B":
        own = {key: settings[key] for key in ("group_width", "channel_attention")}
        return ConvBlock(in_channels, inner, out, **shared, **own)
    heads = settings["num_heads"][stage]
    attention = {
        "num_heads": heads,
        "dim_head": settings["dim_head"] or inner // heads,
        "block_size": settings["block_size"],
        "halo_size": settings["halo_size"],
    }
    ratio = settings["value_ratio"]
    return HaloBlock(in_channels, inner, out, **shared, value_ratio=ratio, attention=attention)


def _init_weights(trunk: nn.Module) -> None:
    """Convolutions by fan out, attention as `HaloAttention` says, each block's last norm zero."""
    trunk.apply(init_conv_fan_out)
    for module in trunk.modules():
        if isinstance(module, HaloAttention):
            module.reset_parameters()
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.conv3_1x1.bn.weight)


def _stage_maps(trunk: Trunk, stem: nn.Module, stages: Iterable[nn.Module], x: Tensor) -> Iterator[Tensor]:
    x = stem(x.contiguous(memory_format=torch.channels_last))
    for stage in stages:
        for block in stage.children():
            x = trunk.run(block, x)
        yield x


def _layer_depth(name: str, stages: Iterable[nn.Module]) -> tuple[int, int]:
    """The stem is layer 0, each block one more, and what follows the stages the last."""
    depths = [len(list(stage.children())) for stage in stages]
    last = sum(depths) + 1
    if name.startswith("stem."):
        return 0, last + 1
    found = re.match(r"stages\.(\d)\.(\d+)\.", name)
    return (1 + sum(depths[: int(found[1])]) + int(found[2]) if found else last), last + 1


@MODELS.register_module()
class HaloNet(NormEvalBackbone):
    """The feature extractor: outputs of the stages as they are, without norms.

    Args:
        arch: 'h0' … 'h7', the hybrids 'halonet26t', 'eca_halonext26ts', 'halonet50ts', 'sehalonet33ts', or a
            dict of what differs from 'h1' (keys of `settings.DEFAULTS`).
        num_heads: heads of every stage, or four numbers; the variant's own if None. The paper's are 4, 8, 8,
            8; trained weights have 8 nearly everywhere.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_indices: stages that give a map; later stages are not built.
        norm_eval: see `NormEvalBackbone`.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch` or one of its values, heads that do not divide a width, or
            `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "h1",
        *,
        num_heads: int | Sequence[int] | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            norm_eval=norm_eval,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(len(STRIDES))
        settings = settings_of(arch, num_heads)
        self.stem = _stem(in_channels, settings)
        self.stages = _stages(settings, drop_path_rate, self.out_indices[-1] + 1)
        self.feature_info = tuple(
            FeatureInfo(settings["out_widths"][index], STRIDES[index]) for index in self.out_indices
        )
        _init_weights(self)
        self.train()  # frozen stages and norms from the beginning

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        maps = enumerate(_stage_maps(self, self.stem, self.stages, x))
        return tuple(stage_map for index, stage_map in maps if index in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4)."""
        return [self.stem] if stage == 0 else list(self.stages)[stage - 1 : stage]

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The stem is layer 0 and each block one more."""
        return _layer_depth(name.removeprefix(prefix), self.stages)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's or an OpenMMLab model's file to those of this backbone."""
        left_out = re.compile(rf"(head|final_conv|stages\.[{len(self.stages)}-9])\.")
        return {name: t for name, t in backbone_of(tensors).items() if not left_out.match(name)}


@MODELS.register_module()
class HaloNetClassifier(Classifier):
    """The classifier: four stages, a last 1x1 convolution in larger variants, global mean, linear head.

    Args:
        arch: as for `HaloNet`.
        num_heads: as for `HaloNet`.
        num_classes: logits; 0 for no head.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch` or one of its values, or heads that do not divide a width.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "h1",
        *,
        num_heads: int | Sequence[int] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = settings_of(arch, num_heads)
        width, final_width = settings["out_widths"][-1], settings["final_width"]
        self.num_features = final_width or width
        self.stem = _stem(in_channels, settings)
        self.stages = _stages(settings, drop_path_rate)
        act = ACTIVATIONS[settings["act"]]()
        self.final_conv = ConvNormAct(width, final_width, act=act) if final_width else None
        _init_weights(self)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean vector (N, num_features)."""
        *_, x = _stage_maps(self, self.stem, self.stages, x)
        return (x if self.final_conv is None else self.final_conv(x)).mean((2, 3))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a fresh one: normal weights of standard deviation 0.01."""
        super().reset_classifier(num_classes)
        if isinstance(self.head, nn.Linear):
            nn.init.normal_(self.head.weight, std=0.01)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The stem is layer 0, each block one more, the last convolution and the head the last."""
        return _layer_depth(name.removeprefix(prefix), self.stages)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of timm's file to those of this network: its head is `head.fc`."""
        return {re.sub(r"^head\.fc\.", "head.", name): tensor for name, tensor in tensors.items()}
