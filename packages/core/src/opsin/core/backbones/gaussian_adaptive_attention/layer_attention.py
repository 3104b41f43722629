"""The experiments' module: each feature weighed by a Gaussian of how it stands among the encoder's layers.

Gaussian Adaptive Attention is All You Need (arXiv 2401.11143; code gioannides/DAAM-PEFT-paper-code,
Apache-2.0). Of the features (B, m, F) of m layers,

    gate = exp(-(x - mean - offset) ** 2 / (2 c var)),     out = x * gate

with mean and variance over the layers, one offset and one c a feature.

What a naive reading gets wrong: this is not the library's module. The variance is the biased one, c is not
squared, and gates are neither scaled nor made to sum to one: they lie in (0, 1] while c is positive, and are
1 where a feature meets the moved mean. Heads are groups of consecutive layers. The published code takes
features over time too, but is only right for one step, which is how it is used: average before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS

VAR_EPS, GATE_EPS = 1e-8, 1e-5


@MODELS.register_module()
class DensityAdaptiveAttention(nn.Module):
    """One head: parameters `mean_offset` and `c`, both (1, feature_size).

    Args:
        feature_size: features F of a layer.
    """

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.full((1, feature_size), 2.0))
        self.mean_offset = nn.Parameter(torch.zeros(1, feature_size))

    def gates(self, x: Tensor) -> Tensor:
        """(B, m, F) to factors of the same shape."""
        mean = x.mean(1, keepdim=True)
        var = (x.square().mean(1, keepdim=True) - mean**2).abs() + VAR_EPS
        return (-((x - mean - self.mean_offset) ** 2) / (var + GATE_EPS) / (2 * self.c)).exp()

    def forward(self, x: Tensor) -> Tensor:
        """(B, m, F) to the same shape."""
        return x * self.gates(x)


@MODELS.register_module()
class DensityAdaptiveHeads(nn.Module):
    """Several heads, each for a group of consecutive layers; parameters `daams.H`.

    Args:
        num_layers: layers L.
        feature_size: features F of a layer.
        num_heads: groups; divides L.

    Raises:
        UserError: if `num_heads` does not divide `num_layers`.
    """

    def __init__(self, num_layers: int, feature_size: int, num_heads: int = 8) -> None:
        super().__init__()
        if num_heads < 1 or num_layers % num_heads:
            raise UserError(f"{num_heads} heads do not divide {num_layers} layers")
        self.daams = nn.ModuleList(DensityAdaptiveAttention(feature_size) for _ in range(num_heads))

    def gates(self, x: Tensor) -> Tensor:
        """(B, L, F) to factors of the same shape."""
        groups = x.chunk(len(self.daams), 1)
        gates = []
        for head, group in zip(self.daams, groups, strict=True):
            assert isinstance(head, DensityAdaptiveAttention)
            gates.append(head.gates(group))
        return torch.cat(gates, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, F) to the same shape."""
        return x * self.gates(x)
