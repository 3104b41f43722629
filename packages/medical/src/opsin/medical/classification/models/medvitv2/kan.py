"""FasterKAN: Kolmogorov-Arnold layers on a radial basis, as MedViTV2 uses them in place of a perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from opsin.registry import MODELS


class RadialBasis(nn.Module):
    """Expands each number x into 1 - tanh((x - g) / width)^2 for fixed points g: 1 at g, 0 far from it.

    Args:
        low: first point.
        high: last point.
        points: how many.
        width: see above.
    """

    def __init__(self, low: float = -2.0, high: float = 2.0, points: int = 8, width: float = 0.33) -> None:
        super().__init__()
        self.width = width
        # a parameter without gradient, since the authors' files and counts have it
        self.grid = nn.Parameter(torch.linspace(low, high, points), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C, points)."""
        return 1 - torch.tanh((x[..., None] - self.grid) / self.width).square()


class KANLayer(nn.Module):
    """LayerNorm, radial basis, and one linear layer over all inputs' expansions; no bias, no base branch.

    Args:
        in_features: numbers in.
        out_features: numbers out.
        **basis: those of `RadialBasis`.
    """

    def __init__(self, in_features: int, out_features: int, **basis: Any) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(in_features)
        self.rbf = RadialBasis(**basis)
        self.spline_linear = nn.Linear(in_features * len(self.rbf.grid), out_features, bias=False)
        nn.init.xavier_uniform_(self.spline_linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.spline_linear(self.rbf(self.layernorm(x)).flatten(-2))


@MODELS.register_module()
class FasterKAN(nn.Module):
    """A Kolmogorov-Arnold network: a chain of `KANLayer`.

    Args:
        widths: numbers in, hidden …, out.
        **basis: those of `RadialBasis`.
    """

    def __init__(self, widths: Sequence[int], **basis: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(KANLayer(i, o, **basis) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1])."""
        for layer in self.layers:
            x = layer(x)
        return x
