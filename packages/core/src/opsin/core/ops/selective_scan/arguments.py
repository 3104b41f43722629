"""What every implementation of the selective scan is given and gives.

Letters: B batch, D channels, N states a channel, L steps, G groups of channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 64  # steps between two kept states


class Scan(NamedTuple):
    """The arguments of `selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool

    @property
    def kind(self) -> torch.dtype:
        """The type that the scan computes in: float32, or float64 for a float64 u."""
        return torch.promote_types(self.u.dtype, torch.float32)

    @property
    def groups(self) -> int:
        """Into how many groups the channels fall."""
        return max(matrix.shape[1] if matrix.ndim == 4 else 1 for matrix in (self.B, self.C))

    @property
    def chunks(self) -> int:
        """How many states a forward pass keeps for its backward pass."""
        return -(-self.u.shape[2] // CHUNK)

    def by_group(self, matrix: Tensor) -> Tensor:
        """A B or C that varies over positions, as (B, G, N, L) with all groups, in the computing type."""
        matrix = matrix.to(self.kind)
        matrix = matrix[:, None] if matrix.ndim == 3 else matrix
        return matrix if matrix.shape[1] == self.groups else matrix.expand(-1, self.groups, -1, -1)

    def ungroup(self, gradient: Tensor, matrix: Tensor) -> Tensor:
        """A gradient (B, G, N, L) in the shape and type of the B or C it belongs to."""
        if matrix.ndim == 3 or matrix.shape[1] == 1:
            gradient = gradient.sum(1, keepdim=True)
        return gradient.reshape(matrix.shape).to(matrix.dtype)


class Gradients(NamedTuple):
    """Gradients by the tensors of a `Scan`, each of its shape and type; an absent tensor's is empty."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor
