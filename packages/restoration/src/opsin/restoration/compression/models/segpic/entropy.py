"""What symbols cost: a learned distribution a channel for codes and hyper-latents, Gaussians for latents.

"Variational image compression with a scale hyperprior" (arXiv 1802.01436). Likelihoods are of a bin of width
1 around the value, and at least 1e-9.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.restoration.compression.models.segpic.gdn import lower_bound

LEAST_LIKELIHOOD = 1e-9
LEAST_SCALE = 0.11
TAIL_MASS = 1e-9
WIDTHS = (1, 3, 3, 3, 3, 1)
INIT_SCALE = 10.0


class _Round(torch.autograd.Function):
    """Rounding half to even, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def rounded(x: Tensor) -> Tensor:
    """Rounded half to even; gradients pass unchanged."""
    out: Tensor = _Round.apply(x)
    return out


def noisy(x: Tensor) -> Tensor:
    """With noise added, uniform from -0.5 to 0.5: what rounding is to a loss."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5)


def gaussian_likelihood(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The mass of a Gaussian in the bin around `value`; all of one shape, in float32.

    Args:
        value: where; rounded relative to the mean, or noisy.
        mean: means.
        scale: standard deviations; at least 0.11 is taken.
    """
    scale = lower_bound(scale.float(), LEAST_SCALE)
    distance = (value.float() - mean.float()).abs()
    mass = _normal_cdf((0.5 - distance) / scale) - _normal_cdf((-0.5 - distance) / scale)
    return lower_bound(mass, LEAST_LIKELIHOOD)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x * 2**-0.5)


class EntropyBottleneck(nn.Module):
    """A learned cumulative distribution a channel; `quantiles` (C, 1, 3) are lower tail, median, upper tail.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        scale = INIT_SCALE ** (1 / (len(WIDTHS) - 1))
        for layer, (into, out) in enumerate(pairwise(WIDTHS)):
            matrix = torch.full((channels, out, into), math.log(math.expm1(1 / scale / out)))
            bias = torch.empty(channels, out, 1).uniform_(-0.5, 0.5)
            self.register_parameter(f"_matrix{layer}", nn.Parameter(matrix))
            self.register_parameter(f"_bias{layer}", nn.Parameter(bias))
            if layer < len(WIDTHS) - 2:
                factor = nn.Parameter(torch.zeros(channels, out, 1))
                self.register_parameter(f"_factor{layer}", factor)
        spread = torch.tensor([-INIT_SCALE, 0.0, INIT_SCALE]).repeat(channels, 1, 1)
        self.quantiles = nn.Parameter(spread)

    def layers(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Matrix, bias and factor of each layer as they are stored; the last layer has no factor."""
        named = dict(self.named_parameters())
        count = len(WIDTHS) - 1
        return [(named[f"_matrix{i}"], named[f"_bias{i}"], named.get(f"_factor{i}")) for i in range(count)]

    @property
    def medians(self) -> Tensor:
        """(C,), without a gradient."""
        return self.quantiles[:, 0, 1].detach()

    def logits(self, value: Tensor, *, frozen: bool = False) -> Tensor:
        """Logits of the cumulative at `value` (C, 1, K); `frozen` keeps gradients from the distribution."""
        for layer in self.layers():
            matrix, bias, factor = (p.detach() if frozen and p is not None else p for p in layer)
            assert matrix is not None and bias is not None
            value = F.softplus(matrix) @ value + bias
            if factor is not None:
                value = value + factor.tanh() * value.tanh()
        return value

    def likelihood(self, value: Tensor) -> Tensor:
        """The mass of the bins around `value` (N, C, H, W), in the same shape and float32."""
        with torch.autocast(value.device.type, enabled=False):
            flat = value.float().transpose(0, 1).flatten(1)[:, None]
            lower, upper = self.logits(flat - 0.5), self.logits(flat + 0.5)
            # on the side where both sigmoids are small, their difference keeps its digits
            sign = -(lower + upper).sign().detach()
            mass = ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()
            mass = lower_bound(mass, LEAST_LIKELIHOOD)[:, 0]
            return mass.unflatten(1, (len(value), *value.shape[2:])).transpose(0, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rounds (N, C, H, W) relative to the medians; and the likelihood (in training that of x + noise)."""
        medians = self.medians[:, None, None]
        value = rounded(x - medians) + medians
        return value, self.likelihood(noisy(x) if self.training else value)

    def quantile_loss(self) -> Tensor:
        """How far the cumulative is from tail, 1/2 and 1 - tail at the quantiles; moves these alone."""
        tail = math.log(2 / TAIL_MASS - 1)
        target = self.quantiles.new_tensor([-tail, 0.0, tail])
        return (self.logits(self.quantiles, frozen=True) - target).abs().sum()
