"""The convolutional half of MaxViT: stem and MBConv, with TensorFlow's padding.

Maps are (N, C, H, W) in the channels-last memory format; 1x1 convolutions run as linear layers on its view
(N, H, W, C).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.maxvit.tanh_gelu import TanhGELU
from opsin.core.layers.conv_norm import fold_conv, fold_linear
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.pointwise_conv import PointwiseConv
from opsin.core.layers.squeeze_excite import SqueezeExcite

batch_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(n / stride) cells on a side, padded as TensorFlow pads."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for side, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:
            return F.conv2d(
                x, self.weight, self.bias, self.stride, (pads[2], pads[0]), self.dilation, self.groups
            )
        return super().forward(F.pad(x, pads))


class Stem(nn.Module):
    """Two 3x3 convolutions, the first of stride 2 with batch norm and GELU after it.

    Args:
        in_channels: channels of the image.
        width: channels out.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = SameConv2d(in_channels, width, 3, stride=2)
        self.norm1: nn.Module = batch_norm(width)
        self.act = TanhGELU()
        self.conv2 = SameConv2d(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, width, ceil(H / 2), ceil(W / 2))."""
        return self.conv2(self.act(self.norm1(self.conv1(x))))

    def fused(self) -> Stem:
        """The stem with its batch norm folded into the convolution before it."""
        _fold_after(self, "conv1", "norm1")
        return self


class Shortcut(nn.Module):
    """The way around an MBConv: a mean of 2x2 cells if it is strided, then `expand` if widths differ.

    On an odd side the last mean is that of the cells there are, as in TensorFlow.
    """

    def __init__(self, in_channels: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.expand = PointwiseConv(in_channels, dim) if in_channels != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        return self.expand(x)


class MbConv(nn.Module):
    """Inverted bottleneck: norm, 1x1 expansion, depth-wise 3x3, squeeze-and-excitation, 1x1 projection.

    Args:
        in_channels: channels in.
        dim: channels out C; the width between is `expand_ratio` * C.
        stride: of the depth-wise convolution.
        drop_path_rate: chance of dropping the branch of a sample, in [0, 1).
        expand_ratio: see `dim`.
        kernel_size: side of the depth-wise convolution.
        se_ratio: width of the squeeze in units of C; 0 leaves squeeze-and-excitation out.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        stride: int = 1,
        *,
        drop_path_rate: float = 0.0,
        expand_ratio: float = 4.0,
        kernel_size: int = 3,
        se_ratio: float = 0.25,
    ) -> None:
        super().__init__()
        hidden = int(expand_ratio * dim)
        is_plain = stride == 1 and in_channels == dim
        self.shortcut = nn.Identity() if is_plain else Shortcut(in_channels, dim, stride)
        self.pre_norm: nn.Module = batch_norm(in_channels)
        self.conv1_1x1: nn.Conv2d = PointwiseConv(in_channels, hidden, bias=False)
        self.norm1: nn.Module = batch_norm(hidden)
        self.act = TanhGELU()
        self.conv2_kxk: nn.Conv2d = SameConv2d(
            hidden, hidden, kernel_size, stride=stride, groups=hidden, bias=False
        )
        self.norm2: nn.Module = batch_norm(hidden)
        squeezed = max(1, int(se_ratio * dim))
        self.se = SqueezeExcite(hidden, squeezed, act=nn.SiLU) if se_ratio else nn.Identity()
        self.conv3_1x1 = PointwiseConv(hidden, dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        y = self.act(self.norm1(self.conv1_1x1(self.pre_norm(x))))
        y = self.se(self.act(self.norm2(self.conv2_kxk(y))))
        return self.shortcut(x) + self.drop_path(self.conv3_1x1(y))

    def fused(self) -> MbConv:
        """The block with its three batch norms folded into the convolutions."""
        _fold_after(self, "conv1_1x1", "norm1")
        _fold_after(self, "conv2_kxk", "norm2")
        if isinstance(self.pre_norm, nn.BatchNorm2d):
            self.conv1_1x1 = _fold_before(self.pre_norm, self.conv1_1x1)
            self.pre_norm = nn.Identity()
        return self


@torch.no_grad()
def _fold_after(block: nn.Module, conv_name: str, norm_name: str) -> None:
    """Folds a block's batch norm into the convolution before it, in place and keeping its class."""
    conv, norm = block.get_submodule(conv_name), block.get_submodule(norm_name)
    if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
        folded = fold_conv(conv, norm)
        conv.weight, conv.bias = folded.weight, folded.bias
        setattr(block, norm_name, nn.Identity())


@torch.no_grad()
def _fold_before(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """The 1x1 convolution of what `norm` gives, as a convolution of what it takes."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None).to(conv.weight)
    linear.weight.copy_(conv.weight.flatten(1))
    if conv.bias is not None:
        linear.bias.copy_(conv.bias)
    folded = fold_linear(norm, linear)
    conv.weight, conv.bias = nn.Parameter(folded.weight.detach()[:, :, None, None]), folded.bias
    return conv
