"""Convolutional stem to stride 16 (LeViT, arXiv 2104.01136)."""

from __future__ import annotations

from torch import nn

from opsin.core.layers.conv_norm import ConvNorm


def conv_stem(in_channels: int, dim: int) -> nn.Sequential:
    """Four 3x3 convolutions of stride 2, widths dim / 8, dim / 4, dim / 2, dim; ReLU between them."""
    widths = [dim // 8, dim // 4, dim // 2, dim]
    layers: list[nn.Module] = []
    for narrow, wide in zip([in_channels, *widths], widths, strict=False):
        layers += [ConvNorm(narrow, wide, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
