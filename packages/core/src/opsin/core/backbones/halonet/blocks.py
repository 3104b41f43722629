"""The two bottlenecks that HaloNets are made of: with halo attention, and with a 3x3 convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.halonet.attention import HaloAttention, round_to_8
from opsin.core.layers.conv_norm import fold_conv
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.efficient_channel_attention import ECA
from opsin.core.layers.squeeze_excite import SqueezeExcite


class ConvNormAct(nn.Module):
    """Convolution without bias (`conv`), batch norm (`bn`), activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        act: nn.Module,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return self.act(self.bn(self.conv(x)))

    def fused(self) -> nn.Module:
        """Convolution and activation that compute the same in evaluation."""
        return nn.Sequential(fold_conv(self.conv, self.bn), self.act)


class Bottleneck(nn.Module):
    """1x1 to the inner width, `mix`, 1x1 to the outer width, added to a shortcut; then the activation.

    Args:
        in_channels: channels in.
        mixed_channels: channels that `mix` gives.
        inner: channels that `mix` takes.
        out_channels: channels out.
        stride: stride of `mix` and the shortcut.
        act: makes the activations.
        drop_path_rate: chance of dropping the branch of a sample.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        mixed_channels: int,
        out_channels: int,
        *,
        stride: int,
        act: type[nn.Module],
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        nothing = nn.Identity()
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = (
            ConvNormAct(in_channels, out_channels, stride=stride, act=nothing) if changes else None
        )
        self.conv1_1x1 = ConvNormAct(in_channels, inner, act=act())
        self.conv3_1x1 = ConvNormAct(mixed_channels, out_channels, act=nothing)
        self.drop_path = DropPath(drop_path_rate)
        self.act = act()

    def mix(self, x: Tensor) -> Tensor:
        """(N, inner, H, W) to (N, mixed_channels, H', W')."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.act(shortcut + self.drop_path(self.conv3_1x1(self.mix(self.conv1_1x1(x)))))


class HaloBlock(Bottleneck):
    """A bottleneck whose middle is halo attention, batch norm and activation.

    Args:
        in_channels, inner, out_channels, stride, act, drop_path_rate: as for `Bottleneck`.
        value_ratio: width of attention's output over `inner`.
        attention: further arguments of `HaloAttention`.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        stride: int,
        act: type[nn.Module],
        drop_path_rate: float,
        value_ratio: float,
        attention: Mapping[str, Any],
    ) -> None:
        mixed = int(inner * value_ratio)
        super().__init__(
            in_channels, inner, mixed, out_channels, stride=stride, act=act, drop_path_rate=drop_path_rate
        )
        self.self_attn = HaloAttention(inner, mixed, stride=stride, **attention)
        self.post_attn = nn.BatchNorm2d(mixed)

    def mix(self, x: Tensor) -> Tensor:
        """(N, inner, H, W) to (N, mixed_channels, H', W')."""
        return self.act(self.post_attn(self.self_attn(x)))


class ConvBlock(Bottleneck):
    """A bottleneck whose middle is a 3x3 convolution and, perhaps, channel attention.

    Args:
        in_channels, inner, out_channels, stride, act, drop_path_rate: as for `Bottleneck`.
        group_width: channels of a group of the convolution; 0 for one group.
        channel_attention: 'se', 'eca' or None.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        stride: int,
        act: type[nn.Module],
        drop_path_rate: float,
        group_width: int,
        channel_attention: str | None,
    ) -> None:
        super().__init__(
            in_channels, inner, inner, out_channels, stride=stride, act=act, drop_path_rate=drop_path_rate
        )
        groups = inner // group_width if group_width else 1
        self.conv2_kxk = ConvNormAct(inner, inner, 3, act=act(), stride=stride, groups=groups)
        self.attn = _channel_attention(channel_attention, inner)

    def mix(self, x: Tensor) -> Tensor:
        """(N, inner, H, W) to (N, inner, H', W')."""
        return self.attn(self.conv2_kxk(x))


def _channel_attention(kind: str | None, channels: int) -> nn.Module:
    if kind == "se":
        return SqueezeExcite(channels, round_to_8(channels / 16))
    return ECA(channels) if kind == "eca" else nn.Identity()
