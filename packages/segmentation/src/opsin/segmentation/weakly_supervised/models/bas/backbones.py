"""BAS on ResNet-50, MobileNetV1 and VGG16: where each is cut, and what becomes of its strides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.models.bas.localizer import (
    CLASSIFIER_WIDTH,
    BASLocalizer,
    init_heads,
    version_settings,
)

HALVING = nn.MaxPool2d(2)

Depth = int | tuple[int, int, int, int]


def expansion(depth: Depth) -> int:
    """By how much the blocks of such a ResNet widen their stage."""
    return 1 if depth in (18, 34) else 4


class ResNetStem(nn.Module):
    """Stem and stages under torchvision's names."""

    conv1: nn.Module
    bn1: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def add_resnet(self, depth: Depth, strides: tuple[int, int, int, int], base_channels: int) -> None:
        """Adds stem and stages; those of mmseg, which has torchvision's names and places of strides."""
        from mmseg.models.backbones import ResNet  # opsin.registry has made mmseg fit to import
        from mmseg.models.backbones.resnet import Bottleneck

        class BottleneckResNet(ResNet):
            arch_settings: ClassVar = {**ResNet.arch_settings, 0: (Bottleneck, depth)}

        undilated = (1, 1, 1, 1)
        known = depth if isinstance(depth, int) else 0
        layers = BottleneckResNet(known, strides=strides, dilations=undilated, base_channels=base_channels)
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(layers, name))

    def lower_stages(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the map of the third stage."""
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))


@MODELS.register_module()
class BASResNet(BASLocalizer, ResNetStem):
    """On ResNet: the third stage keeps stride 8 and is cut after; a max pool comes before the fourth.

    Args:
        num_classes: K.
        depth: 18, 34, 50, 101, 152, or how many bottleneck blocks each stage has.
        base_channels: width of the first stage; 64 as published.
        classifier_width: hidden channels of the classifier.
        clamp_value: see `Clamp`.
        first_version: the CVPR 2022 network: a ReLU on the class maps, and ratios of 1 set to 0.
    """

    def __init__(
        self,
        num_classes: int = 200,
        *,
        depth: Depth = 50,
        base_channels: int = 64,
        classifier_width: int = CLASSIFIER_WIDTH,
        clamp_value: float = 1.0,
        first_version: bool = False,
    ) -> None:
        width = base_channels * expansion(depth)
        super().__init__(
            4 * width,
            8 * width,
            num_classes,
            classifier_width=classifier_width,
            **version_settings(clamp_value, first_version),
        )
        self.add_resnet(depth, (1, 2, 1, 1), base_channels)
        init_heads(self)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1024, h, w) of stride 8."""
        return self.lower_stages(x)

    def upper_half(self) -> Sequence[nn.Module]:
        """Max pool and the fourth stage."""
        return HALVING, self.layer4


MOBILE_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
MOBILE_STRIDES = (1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1)


def separable(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Depth-wise 3x3 and 1x1 convolution, each with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


@MODELS.register_module()
class BASMobileNet(BASLocalizer):
    """On MobileNetV1, cut before its last two blocks; the stride of the sixth block is left out.

    Args:
        num_classes: K.
        width_mult: factor of all widths; 1 as published.
        classifier_width: hidden channels of the classifier.
        clamp_value: see `Clamp`.
        first_version: as for `BASResNet`.

    Raises:
        UserError: for a factor that is not positive.
    """

    def __init__(
        self,
        num_classes: int = 200,
        *,
        width_mult: float = 1.0,
        classifier_width: int = CLASSIFIER_WIDTH,
        clamp_value: float = 1.0,
        first_version: bool = False,
    ) -> None:
        if width_mult <= 0:
            raise UserError(f"width_mult={width_mult} of BASMobileNet", "give a positive factor")
        first, *widths = (max(1, int(width * width_mult)) for width in (32, *MOBILE_WIDTHS))
        super().__init__(
            widths[-3],
            widths[-1],
            num_classes,
            classifier_width=classifier_width,
            **version_settings(clamp_value, first_version),
        )
        stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        sizes = zip([first, *widths], widths, MOBILE_STRIDES, strict=False)
        self.model = nn.Sequential(stem, *(separable(*size) for size in sizes))
        init_heads(self)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 512, h, w) of stride 8."""
        for block in list(self.model)[:-2]:
            x = block(x)
        return x

    def upper_half(self) -> Sequence[nn.Module]:
        """The last two blocks, the first of stride 2."""
        return list(self.model)[-2:]


VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@MODELS.register_module()
class BASVGG(BASLocalizer):
    """On VGG16, cut after the fourth block's last ReLU; there is no fifth pool.

    Args:
        num_classes: K.
        widths: channels of the convolutions of the five blocks.
        classifier_width: hidden channels of the classifier.
        clamp_value: see `Clamp`; 0 as published.
        first_version: as for `BASResNet`.

    Raises:
        UserError: for another number of blocks, or an empty one.
    """

    def __init__(
        self,
        num_classes: int = 200,
        *,
        widths: Sequence[Sequence[int]] = VGG_WIDTHS,
        classifier_width: int = CLASSIFIER_WIDTH,
        clamp_value: float = 0.0,
        first_version: bool = False,
    ) -> None:
        if len(widths) != len(VGG_WIDTHS) or not all(widths):
            raise UserError(f"widths {widths} of BASVGG", "give the channels of five blocks")
        super().__init__(
            widths[3][-1],
            widths[4][-1],
            num_classes,
            classifier_width=classifier_width,
            **version_settings(clamp_value, first_version),
        )
        before = 3
        self.convs = [len(block) for block in widths]
        for block, channels in enumerate(widths, start=1):
            for index, width in enumerate(channels, start=1):
                self.add_module(f"conv{block}_{index}", nn.Conv2d(before, width, 3, padding=1))
                before = width
        init_heads(self)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 512, h, w) of stride 8."""
        for block in range(1, 5):
            x = x if block == 1 else HALVING(x)
            for conv in self._convs(block):
                x = conv(x).relu()
        return x

    def upper_half(self) -> Sequence[nn.Module]:
        """Max pool, and the fifth block's convolutions with ReLU."""
        return [HALVING, *(layer for conv in self._convs(5) for layer in (conv, nn.ReLU()))]

    def _convs(self, block: int) -> Iterator[nn.Module]:
        for index in range(1, self.convs[block - 1] + 1):
            yield self.get_submodule(f"conv{block}_{index}")
