"""The networks of MedViTV2: variants, feature extractor, classifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, resolve_arch
from opsin.core.errors import UserError
from opsin.core.models import register_models
from opsin.core.published import fit
from opsin.medical.classification.models.medvitv2.global_block import GlobalBlock
from opsin.medical.classification.models.medvitv2.layers import ConvNormReLU, Layout
from opsin.medical.classification.models.medvitv2.local_block import LocalBlock
from opsin.registry import MODELS

Arch = Mapping[str, Any]

STRIDES = (4, 8, 16, 32)
KEY_POOLING = (8, 4, 2, 1)  # side of the square whose number of tokens are pooled into a key, by stage

_SHARED: Arch = {
    "stem": (64, 32, 64),
    "head_dim": 32,
    "mix_ratio": 0.75,
    "key_pooling": KEY_POOLING,
    "dilations": (1, 1, 1, 1),
}
ARCHS: dict[str, Arch] = {
    "tiny": {"depths": (2, 2, 6, 1), "dims": (64, 128, 192, 384), **_SHARED},
    "small": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512), **_SHARED},
    "base": {"depths": (2, 2, 6, 2), "dims": (96, 192, 384, 768), **_SHARED},
    "large": {"depths": (2, 2, 6, 2), "dims": (96, 256, 512, 1024), **_SHARED},
}


def _is_global(stage: int, index: int, depth: int) -> bool:
    """Whether block `index` of a stage is a global one."""
    return (False, index == depth - 1, index % 3 == 2, True)[stage]


def _settings(arch: str | Arch) -> dict[str, Any]:
    """The settings of a variant.

    Raises:
        UserError: for an unknown name or key, not four numbers a stage, or a third stage not in threes.
    """
    settings = resolve_arch("MedViTV2", ARCHS, arch if isinstance(arch, str) else {**_SHARED, **arch})
    for key in ("depths", "dims", "key_pooling", "dilations"):
        if len(settings[key]) != len(STRIDES):
            raise UserError(f"MedViTV2 arch has {key} {settings[key]}; give one a stage, four in all")
    if settings["depths"][2] % 3:
        raise UserError(f"MedViTV2 arch has {settings['depths'][2]} blocks in stage 3; give a multiple of 3")
    return settings


def _stages(settings: Mapping[str, Any], drop_path_rate: float, layout: Layout) -> list[list[nn.Module]]:
    """Blocks of every stage; the drop path rate grows linearly over all of them."""
    rates = iter(torch.linspace(0, drop_path_rate, sum(settings["depths"]), device="cpu").tolist())
    channels, stages = settings["stem"][-1], []
    for stage, (depth, dim) in enumerate(zip(settings["depths"], settings["dims"], strict=True)):
        blocks: list[nn.Module] = []
        for index in range(depth):
            shared = {
                "stride": 2 if stage and not index else 1,
                "head_dim": settings["head_dim"],
                "drop_path_rate": next(rates),
                "layout": layout,
            }
            if _is_global(stage, index, depth):
                mixing = {"pooling": settings["key_pooling"][stage], "mix_ratio": settings["mix_ratio"]}
                blocks.append(GlobalBlock(channels, dim, **mixing, **shared))
            else:
                local = {"kernel_size": 3 if stage else 7, "dilation": settings["dilations"][stage]}
                blocks.append(LocalBlock(channels, dim, **local, **shared))
            channels = dim
        stages.append(blocks)
    return stages


def _stem(widths: Sequence[int], in_channels: int) -> nn.Sequential:
    """Four convolutions to stride 4; the last two have the same width."""
    first, second, third = widths
    return nn.Sequential(
        ConvNormReLU(in_channels, first, 2),
        ConvNormReLU(first, second, 1),
        ConvNormReLU(second, third, 1),
        ConvNormReLU(third, third, 2),
    )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@MODELS.register_module()
class MedViTV2(Backbone):
    """The feature extractor.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or dict(depths=…, dims=…) with four numbers each, and if they
            differ from the published ones stem (three widths), head_dim, mix_ratio, key_pooling and dilations
            (of the neighborhood attention; the paper's idea, the published networks have 1 everywhere).
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0. Published: 0.1, base and large 0.2.
        layout: 'published' for the released weights, 'clean' for training from scratch (see the module).
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Each output has a BatchNorm of its own; the classifier's last norm is that of the last stage.

    Raises:
        UserError: for an unknown `arch`, or `out_indices` outside 0..3; in the forward pass, for a map
            smaller than the window of the neighborhood attention (images below 97 pixels a side).
    """

    def __init__(
        self,
        arch: str | Arch = "tiny",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        layout: Layout = "published",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(len(STRIDES))
        settings = _settings(arch)
        self.depths = tuple(settings["depths"])
        self.stem = _stem(settings["stem"], in_channels)
        blocks = [block for stage in _stages(settings, drop_path_rate, layout) for block in stage]
        used = sum(self.depths[: self.out_indices[-1] + 1])
        self.features = nn.ModuleList(blocks[:used])
        self.feature_info = tuple(FeatureInfo(settings["dims"][i], STRIDES[i]) for i in self.out_indices)
        for index, info in zip(self.out_indices, self.feature_info, strict=True):
            self.add_module(f"norm{index}", nn.BatchNorm2d(info.channels))
        self.apply(_init_weights)
        self.train()

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """See `Backbone.stage_modules`."""
        if stage == 0:
            return [self.stem]
        end = sum(self.depths[:stage])
        return list(self.features[end - self.depths[stage - 1] : end])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0 is the stem, then one a block; norms of the outputs belong to the last."""
        return _layer_depth(name.removeprefix(prefix), sum(self.depths))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        x = self.stem(x)
        maps = []
        ends = {sum(self.depths[: index + 1]): index for index in self.out_indices}
        for number, block in enumerate(self.features, start=1):
            x = self.run(block, x)
            if number in ends:
                maps.append(self.get_submodule(f"norm{ends[number]}")(x))
        return tuple(maps)

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The classifier's tensors for this feature extractor."""
        last = len(STRIDES) - 1
        renamed = {re.sub(r"^norm\.", f"norm{last}.", name): tensor for name, tensor in tensors.items()}
        return fit(self.state_dict(), renamed, fresh=r"^norm\d\.", unused=r"^(proj_head|features|norm\d)\.")


def _layer_depth(name: str, blocks: int) -> tuple[int, int]:
    """The layer of a parameter and how many layers there are: stem, blocks, head."""
    if name.startswith("stem."):
        return 0, blocks + 2
    block = re.match(r"features\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1, blocks + 2
    return (blocks if name.startswith("norm") else blocks + 1), blocks + 2


@MODELS.register_module()
class MedViTV2Classifier(Classifier):
    """The published classifier.

    Args:
        arch, in_channels, drop_path_rate, layout: as for `MedViTV2`.
        num_classes: logits; 0 for none.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: see `MedViTV2`.
    """

    def __init__(
        self,
        arch: str | Arch = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        layout: Layout = "published",
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = _settings(arch)
        self.stem = _stem(settings["stem"], in_channels)
        stages = _stages(settings, drop_path_rate, layout)
        self.features = nn.ModuleList(block for stage in stages for block in stage)
        self.num_features = settings["dims"][-1]
        self.norm = nn.BatchNorm2d(self.num_features)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """As `MedViTV2`; the head has the last layer."""
        return _layer_depth(name.removeprefix(prefix), len(self.features))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, num_features): last map, BatchNorm, mean."""
        x = self.stem(x)
        for block in self.features:
            x = self.run(block, x)
        return self.norm(x).mean((2, 3))

    @staticmethod
    def from_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors call the head `proj_head.0`."""
        return {re.sub(r"^proj_head\.0\.", "head.", name): tensor for name, tensor in tensors.items()}

    @staticmethod
    def to_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The way back."""
        return {re.sub(r"^head\.", "proj_head.0.", name): tensor for name, tensor in tensors.items()}


register_models(
    "medvitv2",
    MedViTV2Classifier,
    {
        f"medvitv2_{arch}": {"arch": arch, "drop_path_rate": 0.1 if arch in ("tiny", "small") else 0.2}
        for arch in ARCHS
    },
    backbone=MedViTV2,
)
