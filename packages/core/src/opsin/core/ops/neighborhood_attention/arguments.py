"""What every implementation of neighborhood attention is given and gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Attention(NamedTuple):
    """The arguments of `neighborhood_attention`, with sizes of every axis."""

    q: Tensor
    k: Tensor
    v: Tensor
    rpb: Tensor | None
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    scale: float

    @property
    def kind(self) -> torch.dtype:
        """The type that it computes in: float32, or float64 for a float64 q."""
        return torch.promote_types(self.q.dtype, torch.float32)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The map's size along each axis."""
        return tuple(self.q.shape[2:-1])


class Gradients(NamedTuple):
    """Gradients by the tensors of an `Attention`, in the computing type; that of an absent table is empty."""

    q: Tensor
    k: Tensor
    v: Tensor
    rpb: Tensor
