"""WKV on the CPU: lays channels out in whole vectors for the Numba kernels.

The functions stand for those of `chunked`, and take the same tensors. Beside its results a thread needs five
numbers a token for the sixteen channels that it works on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.kernels import run
from opsin.core.ops.selective_scan.kernels import LANES, LOG2_E
from opsin.core.ops.wkv import kernels
from opsin.core.ops.wkv.chunked import Gradients


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As `chunked.forward`."""
    given = _Packed(w, u, k, v)
    y, state = given.new(*k.shape[:2]), given.state(state)
    given.launch(kernels.forward, state, y)
    state[:, 2] /= LOG2_E
    return given.crop(y), given.crop(state)


def backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor) -> Gradients:
    """As `chunked.backward`."""
    given = _Packed(w, u, k, v)
    return given.gradients(kernels.backward, given.state(state), given.pad(dy))


def bi_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `chunked.bi_forward`."""
    given = _Packed(w, u, k, v)
    y = given.new(*k.shape[:2])
    given.launch(kernels.bi_forward, y)
    return given.crop(y)


def bi_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> Gradients:
    """As `chunked.bi_backward`."""
    given = _Packed(w, u, k, v)
    return given.gradients(kernels.bi_backward, given.pad(dy))


class _Packed:
    """The arguments as kernels read them: powers of two, channels padded to W, whole vectors."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
        self.batch, self.length, self.channels = k.shape
        self.kind = k.dtype
        self.width = -(-self.channels // LANES) * LANES
        self.tensors = (self.pad(w * LOG2_E), self.pad(u * LOG2_E), self.pad(k), self.pad(v))

    def pad(self, x: Tensor) -> Tensor:
        """(..., C) to a contiguous (..., W)."""
        x = x.detach()
        return (F.pad(x, (0, self.width - self.channels)) if self.width != self.channels else x).contiguous()

    def crop(self, x: Tensor) -> Tensor:
        """(..., W) to a contiguous (..., C)."""
        return x[..., : self.channels].contiguous()

    def new(self, *shape: int) -> Tensor:
        """Memory of the computing type, (*shape, W)."""
        return torch.empty(*shape, self.width, dtype=self.kind)

    def state(self, state: Tensor) -> Tensor:
        """A copy whose scale is a power of two."""
        return self.pad(torch.cat([state[:, :2], state[:, 2:] * LOG2_E], 1))

    def launch(self, kernel: Callable[..., Any], *others: Tensor) -> None:
        """Runs a task for each vector of each batch item."""
        arrays = (x.view(-1).numpy() for x in (*self.tensors, *others))
        run(kernel, self.batch * self.width // LANES, self.length, self.width, *arrays)

    def gradients(self, kernel: Callable[..., Any], *given: Tensor) -> Gradients:
        """What a backward kernel gives."""
        by_w, by_u = self.new(self.batch), self.new(self.batch)
        by_k, by_v = self.new(self.batch, self.length), self.new(self.batch, self.length)
        self.launch(kernel, *given, by_w, by_u, by_k, by_v)
        return self.crop(by_w.sum(0)), self.crop(by_u.sum(0)), self.crop(by_k), self.crop(by_v)
