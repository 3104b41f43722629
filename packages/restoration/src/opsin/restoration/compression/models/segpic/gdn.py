"""Generalised divisive normalisation, and the lower bound that keeps its parameters positive.

"Density Modeling of Images using a Generalized Normalization Transformation" (arXiv 1511.06281), parametrised
as learned codecs do: a stored value s stands for max(s, bound)^2 - 2^-36. Maps are (N, C, H, W).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PEDESTAL = 2.0**-36
LEAST_BETA = 1e-6


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient also passes where it would lift a value that is below the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound); where x is below, gradients pass only if a descent step would raise x."""
    out: Tensor = _LowerBound.apply(x, bound)
    return out


def _stored(value: Tensor) -> Tensor:
    return (value + PEDESTAL).sqrt()


def _positive(stored: Tensor, least: float) -> Tensor:
    return lower_bound(stored, (least + PEDESTAL) ** 0.5).square() - PEDESTAL


class GDN(nn.Module):
    """x / sqrt(beta + gamma x²), gamma over channels; `beta` (C,) and `gamma` (C, C) are stored as roots."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(_stored(torch.ones(channels)))
        self.gamma = nn.Parameter(_stored(0.1 * torch.eye(channels)))

    def weights(self) -> tuple[Tensor, Tensor]:
        """What is stored as roots: beta (C,) and gamma (C, C) themselves, not negative."""
        return _positive(self.beta, LEAST_BETA), _positive(self.gamma, 0.0)

    def energy(self, x: Tensor) -> Tensor:
        """The sum beta + gamma x²."""
        beta, gamma = self.weights()
        return F.conv2d(x.square(), gamma[:, :, None, None], beta)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.energy(x).rsqrt()


class InverseGDN(GDN):
    """x · sqrt(beta + gamma x²)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.energy(x).sqrt()
