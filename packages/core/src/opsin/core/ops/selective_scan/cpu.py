"""Selective scan on the CPU: prepares arguments for the Numba kernels and spreads their tasks over threads.

Time goes in chunks of `CHUNK` steps; the forward pass keeps the state before each chunk (L D N / CHUNK
numbers, a quarter of u's own size at N = 16), and the backward pass recomputes the states inside one chunk at
a time from it. Nothing of size L D N is ever made.

A task is a batch item and a run of channels in one group. Tasks follow from the shapes alone, so results do
not depend on the number of threads (`torch.set_num_threads`). The kernels release Python's lock; they are
compiled at the first call (some seconds) and read from Numba's disk cache afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.selective_scan import kernels
from opsin.core.ops.selective_scan.arguments import CHUNK, Gradients, Scan
from opsin.core.ops.selective_scan.kernels import LANES, LOG2_E

PARTS = 4  # pieces into which one sequence's channels are split, if they are that many


def forward(scan: Scan, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, D, L), last state (B, D, N), states (B, K, D, N) before each chunk (K = 0 unless `save`)."""
    packed = _Packed(scan)
    out = torch.empty_like(scan.u, dtype=scan.kind)
    state = packed.zeros(packed.batch, packed.states, packed.width)
    kept = packed.zeros(packed.batch, scan.chunks if save else 0, packed.states, packed.width)
    packed.launch(kernels.forward, *_flat(out), state.numpy(), kept.numpy(), save)
    return out.to(scan.u.dtype), packed.crop(state), packed.crop(kept)


def backward(scan: Scan, dout: Tensor, kept: Tensor) -> Gradients:
    """Gradients by every tensor of `scan`, from that by its output and the states that `forward` kept."""
    packed = _Packed(scan)
    batch, length, width, states = packed.batch, packed.length, packed.width, packed.states
    du, ddelta = torch.empty_like(scan.u, dtype=scan.kind), torch.empty_like(scan.delta, dtype=scan.kind)
    dz = packed.zeros(0, 0, 0) if scan.z is None else torch.empty_like(scan.z, dtype=scan.kind)
    da, dstate, dskip = (
        packed.zeros(batch, states, width),
        packed.zeros(batch, states, width),
        packed.zeros(batch, width),
    )
    per_step, fixed = (packed.parts, batch, packed.groups, length, states), (batch, states, width)
    db = packed.zeros(*(fixed if scan.B.ndim == 2 else per_step))
    dc = packed.zeros(*(fixed if scan.C.ndim == 2 else per_step))
    packed.launch(
        kernels.backward,
        *_flat(dout.to(scan.kind)),
        packed.pad(kept.transpose(-1, -2)).numpy(),
        *_flat(du),
        *_flat(ddelta),
        *_flat(dz),
        *(x.numpy() for x in (da, db.view(-1), dc.view(-1), dskip, dstate)),
    )

    def matrix(gradient: Tensor, like: Tensor) -> Tensor:
        if like.ndim == 2:
            return packed.crop(gradient.sum(0)).to(like.dtype)
        return scan.ungroup(gradient.sum(0).transpose(2, 3), like)

    return Gradients(
        u=du.to(scan.u.dtype),
        delta=ddelta.to(scan.delta.dtype),
        A=packed.crop(da.sum(0)).to(scan.A.dtype),
        B=matrix(db, scan.B),
        C=matrix(dc, scan.C),
        D=packed.zeros(0) if scan.D is None else packed.crop(dskip.sum(0)[None])[:, 0].to(scan.D.dtype),
        z=dz.view(0) if scan.z is None else dz.to(scan.z.dtype),
        delta_bias=packed.zeros(0)
        if scan.delta_bias is None
        else ddelta.sum((0, 2)).to(scan.delta_bias.dtype),
    )


class _Packed:
    """A `Scan` as `kernels.forward` reads it. W is D with each group padded to whole vectors."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self.groups = scan, scan.groups
        self.batch, self.channels, self.length = scan.u.shape
        self.states = scan.A.shape[1]
        blocks = -(-self.channels // self.groups // LANES)
        self.width = self.groups * blocks * LANES
        self.parts = max(1, min(PARTS, blocks))
        nothing = self.zeros(self.channels)
        z = self.zeros(0, 0, 0) if scan.z is None else scan.z.to(scan.kind)
        self.arguments: tuple[Any, ...] = (
            *(self.parts, CHUNK, self.batch, self.channels, self.length, self.groups),
            *(scan.delta_softplus, scan.z is not None),
            (self.pad(scan.A.t()) * LOG2_E).numpy(),
            self.pad(nothing if scan.D is None else scan.D).numpy(),
            self.pad(nothing if scan.delta_bias is None else scan.delta_bias).numpy(),
            *self._matrix(scan.B),
            *self._matrix(scan.C),
            *_flat(scan.u.to(scan.kind)),
            *_flat(scan.delta.to(scan.kind)),
            *_flat(z),
        )

    def _matrix(self, matrix: Tensor) -> tuple[Any, ...]:
        """A B or C, whether it is fixed in time, and its strides."""
        if matrix.ndim == 2:
            return self.pad(matrix.t()).view(-1).numpy(), True, (0, 0, 0, 0)
        array, strides = _flat(self.scan.by_group(matrix))
        return array, False, strides

    def pad(self, x: Tensor) -> Tensor:
        """(..., D) to a contiguous (..., W) of the computing type."""
        x = x.detach().to(self.scan.kind)
        if self.width != self.channels:
            missing = (self.width - self.channels) // self.groups
            x = F.pad(x.unflatten(-1, (self.groups, -1)), (0, missing)).flatten(-2)
        return x.contiguous()

    def crop(self, x: Tensor) -> Tensor:
        """(..., N, W) to a contiguous (..., D, N)."""
        if self.width != self.channels:
            x = x.unflatten(-1, (self.groups, -1))[..., : self.channels // self.groups].flatten(-2)
        return x.transpose(-1, -2).contiguous()

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of the computing type."""
        return torch.zeros(shape, dtype=self.scan.kind)

    def launch(self, kernel: Callable[..., None], *results: Any) -> None:
        """Runs all tasks of `kernel`, spread over torch's number of threads."""
        tasks = self.batch * self.groups * self.parts
        threads = max(1, min(torch.get_num_threads(), tasks))
        bounds = pairwise(tasks * i // threads for i in range(threads + 1))
        if threads == 1:
            kernel(0, tasks, *self.arguments, *results)
            return
        pool = _pool(os.getpid())
        runs = [pool.submit(kernel, first, last, *self.arguments, *results) for first, last in bounds]
        for run in runs:
            run.result()


def _flat(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """The memory of a tensor as a flat array that begins at its first item, and its strides."""
    items = (
        1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        if x.numel()
        else 0
    )
    return x.detach().as_strided((items,), (1,)).numpy(), x.stride()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked child has none of its parent's."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="selective_scan")
