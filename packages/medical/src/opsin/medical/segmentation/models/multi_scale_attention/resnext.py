"""ResNeXt (Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431) on grey slices.

The pyramid under multi-scale guided attention: (N, 1, H, W) to maps at strides 4, 8, 16 and 32.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1, each with its batch norm, and a shortcut; torchvision's names.

    Args:
        in_channels: channels in.
        width: channels between.
        out_channels: channels out.
        groups: groups of the 3x3 convolution.
        stride: its stride.
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, *, groups: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNeXt(nn.Module):
    """A stem of stride 4 and four stages.

    Args:
        in_channels: channels of the slice.
        depths: blocks of the stages.
        groups: groups of the 3x3 convolutions.
        width_per_group: channels of a group in the first stage; they double with each.
        stem_channels: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
    """

    def __init__(
        self,
        in_channels: int = 1,
        depths: Sequence[int] = (3, 4, 23, 3),
        groups: int = 32,
        width_per_group: int = 8,
        stem_channels: int = 64,
    ) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, stem_channels, 7, 2, 3, bias=False)
        self.layer0 = nn.Sequential(stem, nn.BatchNorm2d(stem_channels), nn.ReLU(inplace=True))
        self.channels = tuple(stem_channels * EXPANSION * 2**i for i in range(4))
        before = (stem_channels, *self.channels[:-1])
        stages = [
            _stage(
                before[i], groups * width_per_group * 2**i, self.channels[i], depths[i], groups, 1 + (i > 0)
            )
            for i in range(4)
        ]
        self.layer1 = nn.Sequential(nn.MaxPool2d(3, 2, 1), stages[0])
        self.layer2, self.layer3, self.layer4 = stages[1:]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the four maps, the finest first."""
        maps = []
        x = self.layer0(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def _stage(
    in_channels: int, width: int, out_channels: int, depth: int, groups: int, stride: int
) -> nn.Sequential:
    first = Bottleneck(in_channels, width, out_channels, groups=groups, stride=stride)
    rest = (Bottleneck(out_channels, width, out_channels, groups=groups) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
