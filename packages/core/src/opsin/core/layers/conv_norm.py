"""Convolution and batch norm as one layer, and folding the norm into the weights for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError


class ConvNorm(nn.Module):
    """A convolution without bias (`c`) and the BatchNorm after it (`bn`).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel; padding is half of it.
        stride: stride.
        groups: groups of the convolution.
        weight_init: what the norm's scale begins with; 0 makes a residual branch begin as nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        weight_init: float = 1.0,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.c = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, weight_init)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return self.bn(self.c(x))

    def fused(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        return fold_conv(self.c, self.bn)


Norm = nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def fold_conv(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    """`norm(conv(x))` as one convolution with bias, by the norm's running statistics."""
    scale, shift = scale_and_shift(norm)
    settings: dict[str, Any] = {
        key: getattr(conv, key) for key in ("stride", "padding", "dilation", "groups", "padding_mode")
    }
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, bias=True, **settings)  # type: ignore[arg-type] # kernel_size is a pair here
    folded = folded.to(conv.weight)
    folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
    assert folded.bias is not None
    folded.bias.copy_(shift if conv.bias is None else conv.bias * scale + shift)
    return folded.train(conv.training)


@torch.no_grad()
def fold_linear(norm: Norm, linear: nn.Linear) -> nn.Linear:
    """`linear(norm(x))` as one linear layer with bias, by the norm's running statistics."""
    scale, shift = scale_and_shift(norm)
    folded = nn.Linear(linear.in_features, linear.out_features).to(linear.weight)
    folded.weight.copy_(linear.weight * scale)
    bias = linear.weight @ shift
    folded.bias.copy_(bias if linear.bias is None else bias + linear.bias)
    return folded.train(linear.training)


@torch.no_grad()
def fold_pointwise(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """`conv(norm(x))` of a 1x1 convolution without groups as one, by the norm's running statistics."""
    scale, shift = scale_and_shift(norm)
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, 1).to(conv.weight)
    folded.weight.copy_(conv.weight * scale.view(1, -1, 1, 1))
    assert folded.bias is not None
    bias = conv.weight.flatten(1) @ shift
    folded.bias.copy_(bias if conv.bias is None else bias + conv.bias)
    return folded.train(conv.training)


@torch.no_grad()
def scale_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """A norm in evaluation is x * scale + shift; both (C,).

    Raises:
        UserError: if a plugin stands behind the norm, which folding would lose.
    """
    if any(norm.children()):
        raise UserError("a norm with a plugin behind it cannot be folded", "leave fuse() out")
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def fuse(module: nn.Module) -> nn.Module:
    """Replaces, in place, every part that has a method `fused()` by what that gives; returns the module.

    What it gives must compute the same in evaluation. The outermost part wins: a residual around a
    convolution folds both at once.
    """
    fused = getattr(module, "fused", None)
    if fused is not None:
        return fused()
    for name, child in list(module.named_children()):
        setattr(module, name, fuse(child))
    return module
