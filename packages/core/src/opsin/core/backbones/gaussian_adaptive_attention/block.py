"""The library's module: elements weighed by Gaussians of their own standardised value, along any one axis.

Gaussian Adaptive Attention is All You Need (arXiv 2401.11143; code gioannides/Gaussian-Adaptive-Attention,
Apache-2.0). There are no queries and keys. Along an axis of length n,

    weight ~ product over i of N(x; mean + offset_i, var * c_i ** 2),     out = x * weight

with the mean and the variance of x along the axis and learned offsets and widths.

What a naive reading gets wrong: the "mixture" is a product, and a product of Gaussians is one Gaussian, which
is how it is computed here, at a cost that does not depend on how many there are; offsets are in the units of
x, not of the standardised value; the variance is the unbiased one; heads split the very axis that is
normalised; the sum that weights are divided by is kept above 1e-8, so many wide Gaussians no longer sum to
one. Padded elements pass through unweighed, but they count as zeros in mean and variance and their weights
count in the sum. The published block doubles them, so its second layer no longer knows them as padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS

EPS = 1e-8


@MODELS.register_module()
class GaussianAdaptiveAttention(nn.Module):
    """One head: parameters `mean_offsets` and `c`, both (num_gaussians,).

    Args:
        norm_axis: the axis along which weights sum to one; negative ones count from the last.
        num_gaussians: Gaussians that are multiplied.
        padding_value: elements of exactly this value are padding; None for no padding.
        eps: what is added to the variance, and the least sum of weights.

    Raises:
        UserError: without a Gaussian, and in use for an axis of less than two elements (no variance).
    """

    def __init__(
        self, norm_axis: int, num_gaussians: int, *, padding_value: float | None = None, eps: float = EPS
    ) -> None:
        super().__init__()
        if num_gaussians < 1:
            raise UserError(f"num_gaussians {num_gaussians} must be at least 1")
        self.norm_axis, self.padding_value, self.eps = norm_axis, padding_value, eps
        self.mean_offsets = nn.Parameter(torch.zeros(num_gaussians))
        self.c = nn.Parameter(torch.randn(num_gaussians).exp())

    def weights(self, x: Tensor) -> Tensor:
        """Of a tensor of two dimensions or more its weights, of the same shape; padding has some too."""
        if x.shape[self.norm_axis] < 2:
            raise UserError(f"axis {self.norm_axis} of {list(x.shape)} is too short for a variance")
        known = x if self.padding_value is None else x.masked_fill(x == self.padding_value, 0.0)
        var, mean = torch.var_mean(known, self.norm_axis, keepdim=True)
        var = var + self.eps
        precision = self.c**-2
        total = precision.sum()
        centre = (precision * self.mean_offsets).sum() / total
        spread = (precision * (self.mean_offsets - centre) ** 2).sum()
        height = (self.c.abs() * math.sqrt(2 * math.pi)).log().sum()
        weights = (-0.5 * (total * (x - mean - centre) ** 2 + spread) / var - height).exp()
        return weights / weights.sum(self.norm_axis, keepdim=True).clamp(min=self.eps)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor to the weighed one, and the weights without their gradient."""
        weights = self.weights(x)
        out = x * weights
        if self.padding_value is not None:
            out = torch.where(x == self.padding_value, x, out)
        return out, weights.detach()

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of two dimensions or more to one of the same shape."""
        return self.attend(x)[0]


@MODELS.register_module()
class MultiHeadGaussianAdaptiveAttention(nn.Module):
    """Chunks of the normalised axis, each with a head and statistics of its own; the last takes what is left.

    Args:
        norm_axis, num_gaussians, padding_value: as for `GaussianAdaptiveAttention`.
        num_heads: chunks.

    Raises:
        UserError: without a head, and in use for an axis that gives a head less than two elements.
    """

    def __init__(
        self, norm_axis: int, num_heads: int, num_gaussians: int, *, padding_value: float | None = None
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise UserError(f"num_heads {num_heads} must be at least 1")
        self.norm_axis = norm_axis
        self.attention_heads = nn.ModuleList(
            GaussianAdaptiveAttention(norm_axis, num_gaussians, padding_value=padding_value)
            for _ in range(num_heads)
        )

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor to the weighed one, and the weights without their gradient."""
        heads, length = len(self.attention_heads), x.shape[self.norm_axis]
        if length < 2 * heads:
            raise UserError(
                f"axis {self.norm_axis} of {list(x.shape)} is too short for {heads} heads",
                "each needs two elements for a variance",
            )
        size = length // heads
        chunks = x.split([size] * (heads - 1) + [length - size * (heads - 1)], self.norm_axis)
        outs, weights = [], []
        for head, chunk in zip(self.attention_heads, chunks, strict=True):
            assert isinstance(head, GaussianAdaptiveAttention)
            out, weight = head.attend(chunk)
            outs.append(out)
            weights.append(weight)
        return torch.cat(outs, self.norm_axis), torch.cat(weights, self.norm_axis)

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of two dimensions or more to one of the same shape."""
        return self.attend(x)[0]


@MODELS.register_module()
class GaussianBlock(nn.Module):
    """Layers of heads, each residual; parameters `layers.L.attention_heads.H`.

    Args:
        norm_axes, num_heads, num_gaussians: one number a layer.
        padding_value: as for `GaussianAdaptiveAttention`.

    Raises:
        UserError: if the three don't agree on the number of layers.
    """

    def __init__(
        self,
        norm_axes: Sequence[int],
        num_heads: Sequence[int],
        num_gaussians: Sequence[int],
        *,
        padding_value: float | None = None,
    ) -> None:
        super().__init__()
        if not len(norm_axes) == len(num_heads) == len(num_gaussians):
            raise UserError(
                f"norm_axes {norm_axes}, num_heads {num_heads} and num_gaussians {num_gaussians} "
                "differ in number of layers"
            )
        self.layers = nn.ModuleList(
            MultiHeadGaussianAdaptiveAttention(axis, heads, gaussians, padding_value=padding_value)
            for axis, heads, gaussians in zip(norm_axes, num_heads, num_gaussians, strict=True)
        )

    def attend(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """A tensor to one of the same shape, and every layer's weights without their gradient."""
        found = []
        for layer in self.layers:
            assert isinstance(layer, MultiHeadGaussianAdaptiveAttention)
            out, weights = layer.attend(x)
            x = out + x
            found.append(weights)
        return x, found

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of two dimensions or more to one of the same shape."""
        return self.attend(x)[0]


@MODELS.register_module()
class GaussianPlugin(GaussianBlock):
    """The block on a map, which a config makes a plugin of a stock ResNet of mmdet or mmseg.

        plugins=[dict(cfg=dict(type="opsin.GaussianPlugin"), position="after_conv3")]

    Args:
        in_channels: channels C of the map.
        num_layers: layers.
        num_heads: heads of each layer.
        num_gaussians: Gaussians of each head.
        norm_axis: 1 weighs the channels at every place, 2 and 3 rows and columns.

    Raises:
        UserError: for another axis, for more heads than pairs of channels, and in use for a map whose axis
            is too short for the heads.
    """

    _abbr_ = "gaussian"  # mmcv names a plugin after this

    def __init__(
        self,
        in_channels: int,
        *,
        num_layers: int = 1,
        num_heads: int = 4,
        num_gaussians: int = 5,
        norm_axis: int = 1,
    ) -> None:
        if norm_axis not in (1, 2, 3):
            raise UserError(f"norm_axis {norm_axis} of GaussianPlugin must be 1, 2 or 3")
        if norm_axis == 1 and 2 * num_heads > in_channels:
            raise UserError(f"{num_heads} heads of GaussianPlugin are too many for {in_channels} channels")
        layers = [[value] * num_layers for value in (norm_axis, num_heads, num_gaussians)]
        super().__init__(*layers)
