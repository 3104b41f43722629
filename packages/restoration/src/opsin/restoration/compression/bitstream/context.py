"""How encoder and decoder predict y, slice by slice, from what both have: in fixed or in floating point.

A context is bound to a network. Its `slices` go through one picture: `predict` gives the distribution of the
next slice, `add` takes the slice's symbols, and after the last `latent` is the quantised y.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from opsin.restoration.compression.bitstream.tables import scale_edges, scale_thresholds
from opsin.restoration.compression.fixed_point.arithmetic import (
    ONE,
    half_tanh,
    saturated,
    to_fixed,
    to_float,
)
from opsin.restoration.compression.fixed_point.layers import FixedRegionAdaptiveTransform, fixed_point_of
from opsin.restoration.compression.models.segpic.entropy import EntropyBottleneck
from opsin.restoration.compression.models.segpic.network import SegPIC
from opsin.restoration.compression.models.segpic.regions import GridRegions


class Prediction(NamedTuple):
    """The distribution of a slice's symbols, all (channels, H/16, W/16).

    Attributes:
        mean: what symbols are counted from, float.
        scale: standard deviation, float.
        table: number of the Gaussian table, int64.
    """

    mean: Tensor
    scale: Tensor
    table: Tensor


class Slices(Protocol):
    """One picture's y on its way through encoder or decoder."""

    def predict(self) -> Prediction:
        """The distribution of the next slice."""

    def add(self, symbols: Tensor) -> None:
        """Takes the symbols (channels, H/16, W/16), int64, of the slice that was predicted."""

    def latent(self) -> Tensor:
        """The quantised y (1, latent, H/16, W/16), float32, of all slices."""


class Context(Protocol):
    """What predicts the slices of pictures."""

    identifier: int

    def medians(self, bottleneck: EntropyBottleneck) -> Tensor:
        """What is added to the symbols of each channel (C,), float32."""

    def slices(self, z: Tensor, center2: Tensor, grid: int) -> Slices:
        """Begins a picture with its quantised z (1, C, H/64, W/64) and codes (1, C, grid, grid)."""


class FixedPointContext:
    """Predictions in integer arithmetic: equal on every machine.

    Args:
        network: a trained network, whose weights are copied as integers.

    Raises:
        ValueError: for weights that have no fixed-point form.
    """

    identifier = 1

    def __init__(self, network: SegPIC) -> None:
        self.max_support = network.max_support_slices
        self.device = network.entropy_bottleneck.quantiles.device
        self.h_mean, self.h_scale = fixed_point_of(network.h_mean_s), fixed_point_of(network.h_scale_s)
        self.codes = fixed_point_of(network.g_sb2)
        self.mean_regions = FixedRegionAdaptiveTransform(network.dyn_dec_hyper_means)
        self.scale_regions = FixedRegionAdaptiveTransform(network.dyn_dec_hyper_scales)
        self.mean_nets, self.scale_nets, self.residual_nets = (
            [fixed_point_of(net) for net in nets]
            for nets in (network.cc_mean_transforms, network.cc_scale_transforms, network.lrp_transforms)
        )
        self.thresholds = torch.tensor(scale_thresholds(), dtype=torch.float64, device=self.device)

    def medians(self, bottleneck: EntropyBottleneck) -> Tensor:
        """The medians to the nearest 1/4096."""
        return to_float(to_fixed(bottleneck.medians))

    def slices(self, z: Tensor, center2: Tensor, grid: int) -> FixedPointSlices:
        """Begins a picture."""
        fixed_z, codes = channels_last(to_fixed(z[0])), self.codes(channels_last(to_fixed(center2[0])))
        means, scales = self.h_mean(fixed_z), self.h_scale(fixed_z)
        rows, columns = (
            torch.arange(side, device=self.device) * grid // side for side in means.shape[:2]
        )  # nearest neighbour in integers
        spread = codes[rows[:, None], columns]
        return FixedPointSlices(self, self.mean_regions(means, spread), self.scale_regions(scales, spread))


class FixedPointSlices:
    """The slices of one picture, all (H/16, W/16, C) in 1/4096ths."""

    def __init__(self, context: FixedPointContext, means: Tensor, scales: Tensor) -> None:
        self.context, self.means, self.scales = context, means, scales
        self.decoded: list[Tensor] = []
        self.mean = means

    def _support(self, prediction: Tensor, *more: Tensor) -> Tensor:
        support = self.decoded[: self.context.max_support]
        return torch.cat((prediction, *map(saturated, (*support, *more))), 2)

    def predict(self) -> Prediction:
        """The next slice's distribution."""
        index = len(self.decoded)
        self.mean = self.context.mean_nets[index](self._support(self.means))
        scale = channels_first(self.context.scale_nets[index](self._support(self.scales)))
        table = torch.bucketize(scale, self.context.thresholds)
        return Prediction(channels_first(self.mean) / ONE, scale / ONE, table)

    def add(self, symbols: Tensor) -> None:
        """Adds the predicted residual of rounding to symbols and means."""
        value = channels_last(symbols) * ONE + self.mean
        residual = self.context.residual_nets[len(self.decoded)](self._support(self.means, value))
        self.decoded.append(value + half_tanh(residual))

    def latent(self) -> Tensor:
        """The sum of symbols, means and residuals, as float32."""
        return to_float(channels_first(torch.cat(self.decoded, 2)))[None]


def channels_last(x: Tensor) -> Tensor:
    """(C, H, W) to (H, W, C)."""
    return x.permute(1, 2, 0)


def channels_first(x: Tensor) -> Tensor:
    """(H, W, C) to (C, H, W), in that order in memory."""
    return x.permute(2, 0, 1).contiguous()


class FloatContext:
    """The network's own predictions: equal to its forward pass, on one machine in one setting.

    It is what codecs usually do, and serves to tell what exactness costs.
    """

    identifier = 2

    def __init__(self, network: SegPIC) -> None:
        self.network = network
        device = network.entropy_bottleneck.quantiles.device
        self.thresholds = torch.tensor(scale_edges(), device=device)

    def medians(self, bottleneck: EntropyBottleneck) -> Tensor:
        """The medians."""
        return bottleneck.medians

    def slices(self, z: Tensor, center2: Tensor, grid: int) -> FloatSlices:
        """Begins a picture."""
        return FloatSlices(self, *self.network.predict(z, center2, GridRegions(grid)))


class FloatSlices:
    """The slices of one picture, (1, C, H/16, W/16) float32."""

    def __init__(self, context: FloatContext, means: Tensor, scales: Tensor) -> None:
        self.context, self.means, self.scales = context, means, scales
        self.decoded: list[Tensor] = []
        self.mean = self.support = means

    def predict(self) -> Prediction:
        """The next slice's distribution."""
        network, index = self.context.network, len(self.decoded)
        self.mean, scale, self.support = network.slice_parameters(
            index, self.means, self.scales, self.decoded
        )
        table = torch.bucketize(scale[0], self.context.thresholds)
        return Prediction(self.mean[0], scale[0], table)

    def add(self, symbols: Tensor) -> None:
        """Adds the predicted residual of rounding to symbols and means."""
        value = symbols[None].to(self.mean.dtype) + self.mean
        self.decoded.append(self.context.network.refine(len(self.decoded), self.support, value))

    def latent(self) -> Tensor:
        """All slices."""
        return torch.cat(self.decoded, 1)
