"""ECA-Net: Efficient Channel Attention (arXiv 1910.03151, CVPR 2020; code BangguWu/ECANet, MIT).

ResNets and MobileNetV2 whose blocks weigh their channels by `layers.efficient_channel_attention.ECA`. Image
(N, 3, H, W) to maps of strides 4, 8, 16, 32; every strided layer rounds up, so any size goes through.

What a naive reading gets wrong: the weighing comes after the last batch norm of a block and before the
shortcut is added; the published filters have lengths chosen by hand (`k_sizes`), not the paper's rule, which
is taken where a length is None; the strided convolution of a bottleneck is its 3x3 one; MobileNetV2 weighs
the narrow output of every block, those without a shortcut too, and its filters of length 1 are single
numbers. The repository prints parameters divided by 2 ** 20.

Weighing and adding is one pass over the map, shortcut + map * gates. MobileNetV2's maps travel channels-last,
where depth-wise convolutions take two thirds of the time on a CPU; a ResNet's don't gain by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.cases import only_input, run_classifier, run_module
from opsin.core.backbones.norm_eval import NormEvalBackbone
from opsin.core.errors import UserError, unknown
from opsin.core.layers.conv_norm import fold_conv
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.efficient_channel_attention import ECA, ECANoSharing
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit, place
from opsin.registry import MODELS

STRIDES = (4, 8, 16, 32)
WIDTHS = (64, 128, 256, 512)
ARCHS: dict[str, dict[str, Any]] = {
    "18": {"block": "basic", "depths": (2, 2, 2, 2), "widths": WIDTHS, "k_sizes": (3, 5, 7, 7)},
    "34": {"block": "basic", "depths": (3, 4, 6, 3), "widths": WIDTHS, "k_sizes": (3, 3, 5, 7)},
    "50": {"block": "bottleneck", "depths": (3, 4, 6, 3), "widths": WIDTHS, "k_sizes": (3, 5, 5, 7)},
    "101": {"block": "bottleneck", "depths": (3, 4, 23, 3), "widths": WIDTHS, "k_sizes": (3, 3, 5, 7)},
    "152": {"block": "bottleneck", "depths": (3, 8, 36, 3), "widths": WIDTHS, "k_sizes": (3, 3, 5, 7)},
}
# MobileNetV2: expansion, channels, blocks, stride of the first block; and the block each map leaves
MOBILE_SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MOBILE_ENDS = (3, 6, 13, 17)
MOBILE_STEM, MOBILE_LAST = 32, 1280


def weigh_and_add(shortcut: Tensor, x: Tensor, eca: ECA, drop_path: DropPath) -> Tensor:
    """`shortcut + drop_path(eca(x))` of two maps (N, C, H, W) in one pass."""
    return torch.addcmul(shortcut, x, drop_path(eca.gates(x))[:, :, None, None])


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    """Folds the batch norm `norm` of `module` into its convolution `conv`."""
    setattr(module, conv, fold_conv(module.get_submodule(conv), module.get_submodule(norm)))  # type: ignore[arg-type] # named by the caller
    setattr(module, norm, nn.Identity())


class ResNetBlock(nn.Module):
    """What the two blocks of a ResNet share: the branch, its weighing, the shortcut, ReLU.

    Args:
        in_channels: channels in.
        width: channels of the 3x3 convolution; the block gives `expansion` times as many.
        stride: stride of the 3x3 convolution (of the first, if there are two).
        k_size: length of the ECA filter; None for the rule.
        drop_path_rate: chance of dropping the branch of a sample.
    """

    expansion: int
    convs: int  # convolutions conv1, conv2 … of the branch, each with its norm bn1, bn2 …

    def __init__(
        self, in_channels: int, width: int, stride: int, k_size: int | None, drop_path_rate: float
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.add_convs(in_channels, width, stride)
        self.eca = ECA(out_channels, k_size)
        self.drop_path = DropPath(drop_path_rate)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def add_convs(self, in_channels: int, width: int, stride: int) -> None:
        """Adds the convolutions and norms of the branch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.convs + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            if number < self.convs:
                x = F.relu(x, inplace=True)
        return F.relu(weigh_and_add(shortcut, x, self.eca, self.drop_path), inplace=True)

    def fused(self) -> Self:
        """The block with its norms folded into the convolutions."""
        for number in range(1, self.convs + 1):
            _fold(self, f"conv{number}", f"bn{number}")
        if self.downsample is not None:
            _fold(self.downsample, "0", "1")
        return self


class BasicBlock(ResNetBlock):
    """Two 3x3 convolutions."""

    expansion, convs = 1, 2

    def add_convs(self, in_channels: int, width: int, stride: int) -> None:
        """Adds conv1, bn1, conv2, bn2."""
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)


class Bottleneck(ResNetBlock):
    """1x1, 3x3, and 1x1 to four times the width."""

    expansion, convs = 4, 3

    def add_convs(self, in_channels: int, width: int, stride: int) -> None:
        """Adds conv1, bn1, … conv3, bn3."""
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)


BLOCKS: dict[str, type[ResNetBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNetTrunk(Trunk):
    """Stem and stages under torchvision's names; mix it in before `Backbone` or `Classifier`."""

    channels: tuple[int, ...]  # of the four stages
    depths: tuple[int, ...]
    built: int  # stages that there are

    def add_stages(
        self,
        arch: str | Mapping[str, Any],
        k_sizes: Sequence[int | None] | None,
        *,
        in_channels: int,
        drop_path_rate: float,
        built: int = 4,
    ) -> None:
        """Adds the stem and the first `built` stages.

        Raises:
            UserError: for an unknown `arch`, or settings that are not one a stage.
        """
        settings = resolve_arch("ECAResNet", ARCHS, arch)
        settings["k_sizes"] = settings["k_sizes"] if k_sizes is None else k_sizes
        if settings["block"] not in BLOCKS:
            raise unknown("block of ECAResNet", str(settings["block"]), BLOCKS)
        for key in ("depths", "widths", "k_sizes"):
            if len(settings[key]) != len(STRIDES):
                raise UserError(f"{key} {tuple(settings[key])} of ECAResNet must have four entries")
        block = BLOCKS[settings["block"]]
        self.depths, self.built = tuple(settings["depths"]), built
        self.channels = tuple(width * block.expansion for width in settings["widths"])
        width = settings["widths"][0]
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        rates = drop_path_rates(drop_path_rate, self.depths)
        for stage in range(built):
            before = self.channels[stage - 1] if stage else width
            widths = [before] + [self.channels[stage]] * len(rates[stage])
            blocks = [
                block(
                    channels,
                    settings["widths"][stage],
                    2 if stage and not index else 1,
                    settings["k_sizes"][stage],
                    rate,
                )
                for index, (channels, rate) in enumerate(zip(widths, rates[stage], strict=False))
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.apply(init_conv_fan_out)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map of every stage."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, self.built + 1):
            for block in self.get_submodule(f"layer{stage}").children():
                x = self.run(block, x)
            yield x

    def fuse(self) -> Self:
        """Folds batch norms into the convolutions before them, in place, for inference."""
        _fold(self, "conv1", "bn1")
        return super().fuse()

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The stem is layer 0, each block one more, the head the last."""
        last = sum(self.depths) + 1
        name = name.removeprefix(prefix)
        found = re.match(r"layer(\d)\.(\d+)\.", name)
        if found is None:
            return (0 if name.startswith(("conv1.", "bn1.")) else last), last + 1
        return 1 + sum(self.depths[: int(found[1]) - 1]) + int(found[2]), last + 1

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a file of the authors, torchvision or OpenMMLab to those of this network.

        Whatever lies beyond this network is dropped. A plain ResNet's file has no filters of ECA, which then
        stay as they are.
        """
        tensors = {
            re.sub(r"^(head\.)?fc\.", "head.", name): tensor
            for name, tensor in backbone_of(tensors, "head.fc.").items()
        }
        plain = not any(".eca." in name for name in tensors)
        unused = rf"^layer[{self.built + 1}-9]\."
        if not isinstance(self, Classifier) or not self.num_classes:
            unused += r"|^head\."
        return fit(self.state_dict(), tensors, fresh=r"\.eca\." if plain else "", unused=unused)


@MODELS.register_module()
class ECAResNet(ResNetTrunk, NormEvalBackbone):
    """The feature extractor: maps of the stages as they are, without norms.

    Args:
        arch: '18', '34', '50', '101', '152', or dict(block='basic' or 'bottleneck', depths=…, widths=…,
            k_sizes=…) with four numbers each.
        k_sizes: lengths of the ECA filters of the stages, odd; None within it takes the paper's rule, None
            for all the variant's own. The authors' detectors with ResNet-50 have 3, 3, 7, 7.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_indices: stages that give a map; later stages are not built.
        norm_eval: see `NormEvalBackbone`.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch` or one of its values, an even length, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "50",
        *,
        k_sizes: Sequence[int | None] | None = None,
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
        built = self.out_indices[-1] + 1
        self.add_stages(arch, k_sizes, in_channels=in_channels, drop_path_rate=drop_path_rate, built=built)
        self.feature_info = tuple(
            FeatureInfo(self.channels[index], STRIDES[index]) for index in self.out_indices
        )
        self.train()  # frozen stages and norms from the beginning

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        return tuple(y for index, y in enumerate(self.maps(x)) if index in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4)."""
        if stage == 0:
            return [self.conv1, self.bn1]
        return [self.get_submodule(f"layer{stage}")] if stage <= self.built else []


@MODELS.register_module()
class ECAResNetClassifier(ResNetTrunk, Classifier):
    """The published classifier: four stages, global mean, linear head.

    Args:
        arch, k_sizes, in_channels, drop_path_rate: as for `ECAResNet`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch` or one of its values, or an even length.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "50",
        *,
        k_sizes: Sequence[int | None] | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.add_stages(arch, k_sizes, in_channels=in_channels, drop_path_rate=drop_path_rate)
        self.num_features = self.channels[-1]
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean vector (N, num_features)."""
        *_, x = self.maps(x)
        return x.mean((2, 3))


# MobileNetV2


class ConvNormReLU6(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel_size // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )

    def fused(self) -> Self:
        """The same with the norm folded into the convolution."""
        _fold(self, "0", "1")
        return self


class InvertedResidual(nn.Module):
    """1x1 to `expand_ratio` times the width, depth-wise 3x3, 1x1 to the new width, ECA; perhaps a shortcut.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: stride of the 3x3 convolution.
        expand_ratio: 1 leaves the first convolution out.
        k_size: length of the ECA filter.
        drop_path_rate: chance of dropping the branch of a sample, where there is a shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        expand_ratio: int,
        k_size: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        inner = in_channels * expand_ratio
        expansion = [ConvNormReLU6(in_channels, inner)] if expand_ratio != 1 else []
        self.shortcut = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path_rate)
        self.conv = nn.Sequential(
            *expansion,
            ConvNormReLU6(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            ECA(out_channels, k_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        *layers, eca = self.conv.children()
        y = x
        for layer in layers:
            y = layer(y)
        assert isinstance(eca, ECA)
        return weigh_and_add(x, y, eca, self.drop_path) if self.shortcut else eca(y)

    def fused(self) -> Self:
        """The same with all norms folded into the convolutions."""
        for layer in self.conv.children():
            if isinstance(layer, ConvNormReLU6):
                layer.fused()
        last = len(self.conv) - 1
        _fold(self.conv, str(last - 2), str(last - 1))
        return self


def _init_mobile(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")


class MobileTrunk(Trunk):
    """Stem and blocks as `features`; mix it in before `Backbone` or `Classifier`."""

    features: nn.Sequential
    channels: tuple[int, ...]  # out of each of `features`

    def add_blocks(
        self, width_mult: float, *, in_channels: int, drop_path_rate: float, blocks: int = 17
    ) -> None:
        """Adds the stem and the first `blocks` of the 17 blocks; rates are those of the whole network."""
        channels = int(MOBILE_STEM * width_mult)
        rates = drop_path_rates(drop_path_rate, [repeats for _, _, repeats, _ in MOBILE_SETTINGS])
        layers: list[nn.Module] = [ConvNormReLU6(in_channels, channels, 3, 2)]
        widths = [channels]
        for (expand_ratio, out, _, stride), stage_rates in zip(MOBILE_SETTINGS, rates, strict=True):
            for index, rate in enumerate(stage_rates):
                block = InvertedResidual(
                    widths[-1],
                    int(out * width_mult),
                    stride=1 if index else stride,
                    expand_ratio=expand_ratio,
                    k_size=1 if out < 96 else 3,
                    drop_path_rate=rate,
                )
                layers.append(block)
                widths.append(int(out * width_mult))
        self.features = nn.Sequential(*layers[: blocks + 1])
        self.channels = tuple(widths[: blocks + 1])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The stem is layer 0, each of the 17 blocks one more, what comes after the last."""
        found = re.match(r"features\.(\d+)\.", name.removeprefix(prefix))
        last = MOBILE_ENDS[-1] + 1
        return (min(int(found[1]), last) if found else last), last + 1

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a file of the authors or torchvision to those of this network.

        Whatever lies beyond this network is dropped. A plain MobileNetV2's file has no filters of ECA, which
        then stay as they are.
        """
        tensors = {
            re.sub(r"^classifier(\.\d)?\.", "head.", name): tensor
            for name, tensor in backbone_of(tensors).items()
        }
        own = self.state_dict()
        eca = {name for name in own if own[name].ndim == 3}
        plain = not eca & set(tensors)
        fresh = "|".join(map(re.escape, sorted(eca))) if plain else ""
        later = "|".join(str(index) for index in range(len(self.features), MOBILE_ENDS[-1] + 2))
        unused = rf"^features\.({later})\." if later else ""
        if not isinstance(self, Classifier) or not self.num_classes:
            unused = rf"{unused}|^head\." if unused else r"^head\."
        return fit(own, tensors, fresh=fresh, unused=unused)


@MODELS.register_module()
class ECAMobileNetV2(MobileTrunk, NormEvalBackbone):
    """The feature extractor: the last block of each stride, 24, 32, 96 and 320 channels wide.

    Args:
        width_mult: factor on all widths, which are cut to integers.
        in_channels, drop_path_rate, out_indices, norm_eval: as for `ECAResNet`.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for `out_indices` outside 0..3.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        *,
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
        blocks = MOBILE_ENDS[self.out_indices[-1]]
        self.add_blocks(width_mult, in_channels=in_channels, drop_path_rate=drop_path_rate, blocks=blocks)
        self.feature_info = tuple(
            FeatureInfo(self.channels[MOBILE_ENDS[index]], STRIDES[index]) for index in self.out_indices
        )
        self.apply(_init_mobile)
        self.train()  # frozen stages and norms from the beginning

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        ends = [MOBILE_ENDS[index] for index in self.out_indices]
        for index, block in enumerate(self.features.children()):
            x = self.run(block, x)
            if index in ends:
                maps.append(x)
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or the blocks up to the map of stage `stage` (1 to 4) from that of the one before."""
        bounds = (0, 1, *(end + 1 for end in MOBILE_ENDS))
        return list(self.features.children())[bounds[stage] : bounds[stage + 1]]


@MODELS.register_module()
class ECAMobileNetV2Classifier(MobileTrunk, Classifier):
    """The published classifier: blocks, 1x1 convolution to 1280 channels, global mean, dropout, linear head.

    Args:
        width_mult, in_channels, drop_path_rate: as for `ECAMobileNetV2`.
        num_classes: logits; 0 for no head.
        drop_rate: dropout before the head.
        with_cp, init_cfg: see `Trunk`.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.25,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.add_blocks(width_mult, in_channels=in_channels, drop_path_rate=drop_path_rate)
        self.num_features = int(MOBILE_LAST * max(1.0, width_mult))
        self.features.append(ConvNormReLU6(self.channels[-1], self.num_features))
        self.dropout = nn.Dropout(drop_rate)
        self.apply(_init_mobile)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean vector (N, num_features)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.features.children():
            x = self.run(block, x)
        return x.mean((2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, num_features) to logits (N, num_classes)."""
        return self.head(self.dropout(features))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a fresh one: normal weights of standard deviation 0.01."""
        super().reset_classifier(num_classes)
        if isinstance(self.head, nn.Linear):
            nn.init.normal_(self.head.weight, std=0.01)


register_models(
    "eca-net",
    ECAResNetClassifier,
    {
        **{f"eca_resnet{arch}": {"arch": arch} for arch in ARCHS},
        "eca_resnet50_k3377": {"arch": "50", "k_sizes": (3, 3, 7, 7)},  # in the authors' detectors
    },
    backbone=ECAResNet,
)
register_models("eca-net", ECAMobileNetV2Classifier, {"eca_mobilenetv2": {}}, backbone=ECAMobileNetV2)


@adapter("eca-net", r"eca_(module|ns)")
@torch.no_grad()
def _module_case(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    kind = ECANoSharing if "eca_ns" in case.source else ECA
    module = kind(built_with["channel"], built_with.get("k_size", 3))
    return {**run_module(module, case), "weights": module.gates(only_input(case))}


@adapter("eca-net", r"ECA(BasicBlock|Bottleneck)")
def _block_case(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    width, in_channels = case.shapes["conv1.weight"][:2]
    kind = Bottleneck if "conv3.weight" in case.shapes else BasicBlock
    return run_module(
        kind(in_channels, width, built_with.get("stride", 1), built_with.get("k_size", 3), 0.0), case
    )


@adapter("eca-net", r"InvertedResidual")
def _inverted_residual_case(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    block = InvertedResidual(
        built_with["inp"],
        built_with["oup"],
        stride=built_with["stride"],
        expand_ratio=built_with["expand_ratio"],
        k_size=built_with["k_size"],
    )
    return run_module(block, case)


@adapter("eca-net", r"eca_resnet")
def _resnet_case(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    found = re.search(r"eca_resnet(\d+)", case.source)
    arch = dict(ARCHS[found[1] if found else "50"])
    if "block" in built_with:
        arch["block"] = "basic" if "Basic" in built_with["block"] else "bottleneck"
    arch["depths"] = built_with.get("layers", arch["depths"])
    # the authors' functions have filters of 3 by default, their trained models others
    arch["k_sizes"] = [case.shapes[f"layer{stage}.0.eca.conv.weight"][2] for stage in range(1, 5)]
    return _network_case(case, ECAResNet, ECAResNetClassifier, "fc.weight", {"arch": arch})


@adapter("eca-net", r"eca_mobilenet")
def _mobile_case(case: Case) -> dict[str, Tensor]:
    settings = {"width_mult": case.built_with.get("width_mult", 1.0)}
    head = next((name for name in case.shapes if re.match(r"classifier.*weight", name)), "")
    return _network_case(case, ECAMobileNetV2, ECAMobileNetV2Classifier, head, settings)


@torch.no_grad()
def _network_case(
    case: Case,
    backbone: Callable[..., Backbone],
    classifier: Callable[..., Classifier],
    head: str,
    settings: dict[str, Any],
) -> dict[str, Tensor]:
    """Maps under the names that end in a digit, features and logits under the others."""
    outputs: dict[str, Tensor] = {}
    staged = sorted(name for name in case.meta["outputs"] if name[-1].isdigit())
    if len(staged) < len(case.meta["outputs"]):
        outputs |= run_classifier(classifier(**settings, num_classes=case.shapes.get(head, (0,))[0]), case)
    if staged:
        dense = backbone(**settings, out_indices=[int(name[-1]) - 1 for name in staged]).eval()
        place(dense, case.state_dict())
        outputs |= dict(zip(staged, dense(only_input(case)), strict=True))
    return outputs
