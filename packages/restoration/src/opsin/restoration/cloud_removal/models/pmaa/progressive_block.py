"""PMAA's progressive multi-scale block: a pyramid, its summary, and the summary given back to every scale.

Names, in the order of the road: `proj_1x1`, `spp_dw` (the pyramid), `globalatt` (the multi-scale attention
module, MAM), `loc_glo_fus` and `last_layer` (the local interaction modules, LIM), `res_conv`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.restoration.cloud_removal.models.pmaa.feature_extractor import Norm

DROP_PATH_RATE = 0.1
LAYER_SCALE = 1e-6


class SeparableConv(nn.Module):
    """Two convolutions without bias, each with its norm; a skip where the size and the width stay.

    Called separable where it was published, and so named; the first convolution is depth-wise in 1x1 form
    only, and dense in 3x3 form.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: side of the first convolution, 1 (depth-wise) or 3 (dense).
        norm: makes a norm layer.
        act: makes what follows the first norm: nothing in the network as published weights know it.
        stride: of the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        norm: Norm,
        act: type[nn.Module],
        stride: int = 1,
    ) -> None:
        super().__init__()
        groups = in_channels if kernel == 1 else 1
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn1 = norm(in_channels)
        self.act = act()
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = norm(out_channels)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        y = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))
        return x + y if self.has_skip else y


class ConvMod(nn.Module):
    """Convolutional modulation (Conv2Former, arXiv 2211.11943): an 11x11 convolution weighs the values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim)
        self.a = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, 11, padding=5, groups=dim)
        )
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        x = self.norm(x)
        return self.proj(self.a(x) * self.v(x))


class ConvMlp(nn.Module):
    """The perceptron after it, with a depth-wise 3x3 convolution as its sense of place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim)
        self.fc1 = nn.Conv2d(dim, 4 * dim, 1)
        self.pos = nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim)
        self.fc2 = nn.Conv2d(4 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        x = F.gelu(self.fc1(self.norm(x)))
        return self.fc2(x + F.gelu(self.pos(x)))


class MultiScaleAttention(nn.Module):
    """MAM: a Conv2Former layer on the summary of all scales; it begins almost as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = ConvMod(dim)
        self.mlp = ConvMlp(dim)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.drop_path = DropPath(DROP_PATH_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) to the same shape."""
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(x))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(x))


class Injection(nn.Module):
    """LIM: what is global decides how much of what is local passes, and is added.

    Args:
        dim: channels.
        kernel: side of the three depth-wise convolutions.
        norm: makes a norm layer.
    """

    def __init__(self, dim: int, kernel: int, norm: Norm) -> None:
        super().__init__()

        def embedding() -> nn.Sequential:
            conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
            return nn.Sequential(conv, norm(dim))

        self.local_embedding = embedding()
        self.global_embedding = embedding()
        self.global_act = embedding()

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        """Maps (B, dim, H, W) and (B, dim, h, w) to (B, dim, H, W); the second is resized to the nearest."""
        size = local.shape[-2:]
        gate = F.interpolate(self.global_act(context).sigmoid(), size=size)
        return self.local_embedding(local) * gate + F.interpolate(self.global_embedding(context), size=size)


class ProgressiveBlock(nn.Module):
    """A pyramid of `depth` scales summarised in one map, which is refined and given back from coarse to fine.

    Where `in_channels` is three times `out_channels`, the input counts as three dates, and their sum is the
    residual; otherwise the input is.

    The decoder begins with the second deepest scale and, as its context, the *third* deepest (the deepest
    where there are two): so it was published and trained. The deepest scale's injection is therefore never
    used; it has weights, which get no gradient, and is not computed.

    Args:
        in_channels: channels in.
        hidden_channels: channels inside.
        out_channels: channels out.
        depth: scales, at least 2.
        norm: makes a norm layer.
        act: see `SeparableConv`.
        residual: whether the residual is added.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        depth: int,
        norm: Norm,
        act: type[nn.Module],
        *,
        residual: bool = True,
    ) -> None:
        super().__init__()
        h = hidden_channels
        self.proj_1x1 = SeparableConv(in_channels, h, 1, norm, act)
        strides = [1] + [2] * (depth - 1)
        self.spp_dw = nn.ModuleList(SeparableConv(h, h, 3, norm, act, stride) for stride in strides)
        self.loc_glo_fus = nn.ModuleList(Injection(h, 1, norm) for _ in range(depth))
        self.globalatt = MultiScaleAttention(h)
        self.last_layer = nn.ModuleList(Injection(h, 5, norm) for _ in range(depth - 1))
        self.res_conv = nn.Conv2d(h, out_channels, 1)
        self.dates = 3 if in_channels == 3 * out_channels else 1
        self.residual = residual
        self.apply(init_conv_fan_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        scales = [self.spp_dw[0](self.proj_1x1(x))]
        for down in list(self.spp_dw)[1:]:
            scales.append(down(scales[-1]))
        size = scales[-1].shape[-2:]
        summary = self.globalatt(sum(F.adaptive_avg_pool2d(scale, size) for scale in scales))
        y = self.res_conv(self._decode(scales, summary))
        return y + x.unflatten(1, (self.dates, -1)).sum(1) if self.residual else y

    def _decode(self, scales: list[Tensor], summary: Tensor) -> Tensor:
        finest_to_coarsest = list(zip(self.loc_glo_fus, scales, strict=True))
        used = finest_to_coarsest[: max(2, len(scales) - 1)]
        fused = [inject(scale, summary) for inject, scale in used]
        start = len(scales) - 2
        y = self.last_layer[start](fused[start], fused[start - 1])
        for i in reversed(range(start)):
            y = self.last_layer[i](fused[i], y)
        return y
