"""Layers of networks on fixed-point maps (H, W, C), made from trained layers by `fixed_point_of`.

Channels are last, unlike in the network: BLAS multiplies maps whose rows are pixels a third faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn

from opsin.restoration.compression.fixed_point.arithmetic import (
    FRACTION,
    GATE_FRACTION,
    LIMIT,
    SUM_BITS,
    gate,
    gelu,
    integer_sqrt,
    leaky_relu,
    saturated,
    shift_,
    shifted,
)
from opsin.restoration.compression.models.segpic.gdn import InverseGDN
from opsin.restoration.compression.models.segpic.regions import RegionAdaptiveTransform

Layer = Callable[[Tensor], Tensor]
INPUT_BITS = LIMIT.bit_length()
MOST_WEIGHT_BITS = 24
VALUES_AT_ONCE = 2**17  # of a matrix that is made for a product: one that stays in the processor's cache


def integer_weights(weight: Tensor, input_bits: int) -> tuple[Tensor, int]:
    """Weights (out, …) as float64 integers, and the bits b after their point.

    b is the largest, up to 24, with which the sum of products with inputs below 2^`input_bits` stays within
    2^48. It follows from the weights by integer arithmetic, so that every machine finds the same.

    Raises:
        ValueError: for weights that are not finite, or too large to be held.
    """
    if not torch.isfinite(weight).all():
        raise ValueError("a weight is not finite")
    fine = (weight.detach().double().cpu() * 2.0**MOST_WEIGHT_BITS).round()
    largest = int(fine.abs().long().flatten(1).sum(1).max())
    excess = max(0, (largest + fine[0].numel()).bit_length() - (SUM_BITS - input_bits))
    bits = MOST_WEIGHT_BITS - excess
    if bits < 1:
        raise ValueError("weights are too large for fixed-point arithmetic")
    return (fine * 2.0**-excess).round().to(weight.device), bits


def integer_bias(bias: Tensor, bits: int) -> Tensor:
    """A bias (out,) as integers, in the unit of sums whose weights have `bits` after the point."""
    return (bias.detach().double() * 2.0 ** (FRACTION + bits)).round()


class FixedConv:
    """A convolution of stride 1 that keeps the size, with a kernel of 1x1 or 3x3 and zeros around the map."""

    def __init__(self, conv: nn.Conv2d) -> None:
        weight, self.bits = integer_weights(conv.weight, INPUT_BITS)
        self.side = conv.kernel_size[0]
        self.taps = weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()  # (side², in, out)
        assert conv.bias is not None
        self.bias = integer_bias(conv.bias, self.bits)

    def __call__(self, x: Tensor) -> Tensor:
        """(H, W, in) to (H, W, out).

        Rounding the sums changes nothing, as sums of integers below 2^53 are integers.
        """
        height, width, _ = x.shape
        if self.side == 1:
            sums = torch.addmm(self.bias, x.flatten(0, 1), self.taps[0])
            return shift_(sums.round_(), self.bits).unflatten(0, (height, width))
        sums = shift_(self._sums(x).round_(), self.bits)
        return sums.view(height, width + 2, -1)[:, :width]

    def _sums(self, x: Tensor) -> Tensor:
        """Of 3x3 neighbourhoods, (H·(W + 2), out): one product a tap, on the padded map as one long row.

        The last two of each row are of no place: their neighbourhoods lie on two rows.
        """
        height, width, channels = x.shape
        padded = x.new_zeros((height + 3, width + 2, channels))
        padded[1 : height + 1, 1:-1] = x
        pixels = padded.flatten(0, 1)
        length = height * (width + 2)
        sums = self.bias.repeat(length, 1)
        for tap, matrix in enumerate(self.taps):
            start = tap // 3 * (width + 2) + tap % 3
            sums.addmm_(pixels[start : start + length], matrix)
        return sums


class FixedDepthwiseConv:
    """A 3x3 convolution of each channel alone, to `out` channels from each, with zeros around the map."""

    def __init__(self, conv: nn.Conv2d) -> None:
        weight, self.bits = integer_weights(conv.weight, INPUT_BITS)
        self.taps = weight.flatten(1).unflatten(0, (conv.groups, -1)).contiguous()  # (C, out, 9)
        assert conv.bias is not None
        self.bias = integer_bias(conv.bias, self.bits).view(conv.groups, -1, 1)

    def __call__(self, x: Tensor, channels: slice) -> Tensor:
        """Some channels of a map, themselves first, (…, H, W) to (channels, out, H·W)."""
        sums = (self.taps[channels] @ neighbours(x)).add_(self.bias[channels])
        return shift_(sums.round_(), self.bits)


def neighbours(x: Tensor) -> Tensor:
    """The 3x3 neighbourhood of each place with zeros around, (C, H, W) to (C, 9, H·W), row by row."""
    _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    taps = [padded[:, r : r + height, c : c + width] for r in range(3) for c in range(3)]
    return torch.stack(taps, 1).flatten(2)


class FixedInverseGDN:
    """x · sqrt(beta + gamma x²)."""

    def __init__(self, norm: InverseGDN) -> None:
        beta, gamma = norm.weights()
        # squares have 2 · 21 bits, less the 12 that are dropped
        integers, self.bits = integer_weights(gamma, 2 * INPUT_BITS - FRACTION)
        self.gamma = integers.t().contiguous()  # (in, out)
        self.beta = integer_bias(beta, self.bits)

    def __call__(self, x: Tensor) -> Tensor:
        """(H, W, C) to the same shape."""
        squares = shifted(x * x, FRACTION).flatten(0, 1)
        energy = torch.addmm(self.beta, squares, self.gamma).round_().clamp_(min=0)
        root = integer_sqrt(shifted(energy, self.bits - FRACTION).clamp(max=1 << 50))
        return shift_(x * root.view_as(x), FRACTION)


class FixedRegionAdaptiveTransform:
    """The region-adaptive transform with 3x3 kernels, on a map and the codes of its places."""

    def __init__(self, transform: RegionAdaptiveTransform) -> None:
        self.conv = fixed_point_of(transform.conv)
        self.before_kernels = fixed_point_of(nn.Sequential(*list(transform.k_sp_gen)[:-1]))
        kernels = transform.k_sp_gen[-1]
        assert isinstance(kernels, nn.Conv2d)
        self.kernels = FixedDepthwiseConv(kernels)
        self.channel_gate = fixed_point_of(nn.Sequential(*list(transform.k_ch_gen)[1:-1]))
        self.conv_out = fixed_point_of(transform.conv_out)

    def __call__(self, x: Tensor, codes: Tensor) -> Tensor:
        """Map (H, W, C) and codes (H, W, D) to (H, W, C)."""
        value = self.conv(x)
        seeds = self.before_kernels(torch.cat((value, codes), 2))
        filtered = self._filtered(value.permute(2, 0, 1), seeds.permute(2, 0, 1)).permute(1, 2, 0)
        pixels = filtered[..., 0].numel()
        sums = filtered.sum((0, 1)).long()
        means = torch.div(sums + pixels // 2, pixels, rounding_mode="floor").double()
        gates = gate(self.channel_gate(means[None, None]))
        return saturated(self.conv_out(shift_(filtered * gates, GATE_FRACTION)) + x)

    def _filtered(self, value: Tensor, seeds: Tensor) -> Tensor:
        """(C, H, W) both: some channels at a time, as each place has nine weights a channel."""
        count = max(1, VALUES_AT_ONCE // (9 * value[0].numel()))
        parts = [slice(first, first + count) for first in range(0, len(value), count)]
        sums = [
            self.kernels(seeds[part], part).mul_(neighbours(value[part])).sum(1).view_as(value[part])
            for part in parts
        ]
        return shift_(torch.cat(sums), FRACTION)


def pixel_shuffle(factor: int) -> Layer:
    """(H, W, C·factor²) to (H·factor, W·factor, C)."""

    def layer(x: Tensor) -> Tensor:
        parts = x.unflatten(2, (-1, factor, factor)).permute(0, 3, 1, 4, 2)
        return parts.flatten(2, 3).flatten(0, 1)

    return layer


class FixedSequential:
    """One layer after the other."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        """(H, W, in) to (H', W', out)."""
        for layer in self.layers:
            x = layer(x)
        return x


@singledispatch
def fixed_point_of(module: nn.Module) -> Layer:
    """The fixed-point form of a trained layer; its weights are copied.

    Raises:
        TypeError: for a layer that has none.
    """
    raise TypeError(f"{type(module).__name__} has no fixed-point form")


@fixed_point_of.register
def _(module: nn.Sequential) -> Layer:
    return FixedSequential([fixed_point_of(child) for child in module])


@fixed_point_of.register
def _(module: nn.Conv2d) -> Layer:
    if module.stride != (1, 1) or module.groups != 1 or module.kernel_size not in ((1, 1), (3, 3)):
        raise TypeError(f"no fixed-point form of {module}")
    return FixedConv(module)


@fixed_point_of.register
def _(module: nn.GELU) -> Layer:
    return gelu


@fixed_point_of.register
def _(module: nn.LeakyReLU) -> Layer:
    if not math.isclose(module.negative_slope, 0.1):
        raise TypeError(f"no fixed-point form of {module}")
    return leaky_relu


@fixed_point_of.register
def _(module: nn.PixelShuffle) -> Layer:
    return pixel_shuffle(module.upscale_factor)


@fixed_point_of.register
def _(module: InverseGDN) -> Layer:
    return FixedInverseGDN(module)
