"""Selective scan in Triton, for CUDA (and, with `TRITON_INTERPRET=1`, on the CPU for tests).

A program holds the states of `BLOCK` channels of one batch item and walks the sequence; lanes lie along
channels, which are contiguous in the channel-last arrays that the kernels read. The forward pass keeps the
state before every chunk of `CHUNK` steps; the backward pass recomputes a chunk's states into a scratch of
that many steps, whatever the length. Gradients by B and C that channels share are summed block by block, then
in PyTorch: no atomics, so it is deterministic.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.selective_scan.arguments import CHUNK, Gradients, Scan
from opsin.core.ops.triton_kernels.softplus import softplus

BLOCK = 32  # channels a program


@triton.jit
def _matrix(base, item, group, groups, t, length, states, d, n, mask, FIXED: tl.constexpr):
    """B or C at step t as (1, N) from (B, G, L, N), or as (channels, N) from a fixed (D, N)."""
    if FIXED:
        return tl.load(base + d[:, None] * states + n[None, :], mask=mask, other=0.0)
    else:  # not redundant: Triton checks what follows a return, and the shapes differ
        row = ((item * groups + group) * length + t) * states
        return tl.load(base + row + n[None, :], mask=n[None, :] < states, other=0.0)


@triton.jit
def _step(delta, bias, at, inside, SOFT: tl.constexpr):
    """Delta plus bias, and the step that it makes."""
    raw = tl.load(delta + at, mask=inside, other=0.0) + bias
    return raw, softplus(raw) if SOFT else raw


@triton.jit
def _forward_kernel(
    u, delta, A, B, C, D, z, bias, out, state, kept, length, channels, states, groups, chunks,
    SOFT: tl.constexpr, GATED: tl.constexpr, B_FIXED: tl.constexpr, C_FIXED: tl.constexpr, SAVE: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    item, group, n = tl.program_id(0), tl.program_id(1), tl.arange(0, STATES)
    within = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    d, inside = group * (channels // groups) + within, within < channels // groups
    mask = inside[:, None] & (n[None, :] < states)
    plane = d[:, None] * states + n[None, :]
    a = tl.load(A + plane, mask=mask, other=0.0)
    skip, bias_d = tl.load(D + d, mask=inside, other=0.0), tl.load(bias + d, mask=inside, other=0.0)
    h = a * 0.0
    for t in range(length):
        if SAVE and t % CHUNK == 0:
            tl.store(kept + (item * chunks + t // CHUNK) * channels * states + plane, h, mask=mask)
        at = (item * length + t) * channels + d
        x = tl.load(u + at, mask=inside, other=0.0)
        _, dt = _step(delta, bias_d, at, inside, SOFT)
        b = _matrix(B, item, group, groups, t, length, states, d, n, mask, B_FIXED)
        c = _matrix(C, item, group, groups, t, length, states, d, n, mask, C_FIXED)
        h = tl.exp(dt[:, None] * a) * h + (dt * x)[:, None] * b
        y = tl.sum(h * c, axis=1) + skip * x
        if GATED:
            gate = tl.load(z + at, mask=inside, other=0.0)
            y = y * gate / (1.0 + tl.exp(-gate))
        tl.store(out + at, y, mask=inside)
    tl.store(state + item * channels * states + plane, h, mask=mask)


@triton.jit
def _backward_kernel(
    u, delta, A, B, C, D, z, bias, dout, kept, scratch, du, ddelta, dz, dA, dB, dC, dD,
    length, channels, states, groups, chunks,
    SOFT: tl.constexpr, GATED: tl.constexpr, B_FIXED: tl.constexpr, C_FIXED: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    item, group, n = tl.program_id(0), tl.program_id(1), tl.arange(0, STATES)
    within = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    d, inside = group * (channels // groups) + within, within < channels // groups
    mask = inside[:, None] & (n[None, :] < states)
    plane = d[:, None] * states + n[None, :]
    a = tl.load(A + plane, mask=mask, other=0.0)
    skip, bias_d = tl.load(D + d, mask=inside, other=0.0), tl.load(bias + d, mask=inside, other=0.0)
    batch = tl.num_programs(0)
    program = (item * groups + group) * tl.num_programs(2) + tl.program_id(2)
    block = tl.arange(0, BLOCK)[:, None] * STATES + n[None, :]
    mine = scratch + program * (CHUNK + 1) * BLOCK * STATES + block
    dh, da, db, dc, dskip = a * 0.0, a * 0.0, a * 0.0, a * 0.0, skip * 0.0
    for back in range(chunks):
        k = chunks - 1 - back
        rows = tl.minimum(CHUNK, length - k * CHUNK)
        h = tl.load(kept + (item * chunks + k) * channels * states + plane, mask=mask, other=0.0)
        tl.store(mine, h)
        for row in range(rows):
            t = k * CHUNK + row
            at = (item * length + t) * channels + d
            _, dt = _step(delta, bias_d, at, inside, SOFT)
            b = _matrix(B, item, group, groups, t, length, states, d, n, mask, B_FIXED)
            drive = dt * tl.load(u + at, mask=inside, other=0.0)
            h = tl.exp(dt[:, None] * a) * h + drive[:, None] * b
            tl.store(mine + (row + 1) * BLOCK * STATES, h)
        tl.debug_barrier()  # other threads of the program may read what this one stored
        for ahead in range(rows):
            row = rows - 1 - ahead
            t = k * CHUNK + row
            at = (item * length + t) * channels + d
            x, g = tl.load(u + at, mask=inside, other=0.0), tl.load(dout + at, mask=inside, other=0.0)
            raw, dt = _step(delta, bias_d, at, inside, SOFT)
            b = _matrix(B, item, group, groups, t, length, states, d, n, mask, B_FIXED)
            c = _matrix(C, item, group, groups, t, length, states, d, n, mask, C_FIXED)
            before, after = tl.load(mine + row * BLOCK * STATES), tl.load(mine + (row + 1) * BLOCK * STATES)
            if GATED:
                gate = tl.load(z + at, mask=inside, other=0.0)
                opening = 1.0 / (1.0 + tl.exp(-gate))
                y = tl.sum(after * c, axis=1) + skip * x
                tl.store(dz + at, g * y * opening * (1.0 + gate * (1.0 - opening)), mask=inside)
                g = g * gate * opening
            dskip += g * x
            dh += g[:, None] * c
            by_b, by_c = dh * (dt * x)[:, None], g[:, None] * after
            sums = (((tl.program_id(2) * batch + item) * groups + group) * length + t) * states + n
            if B_FIXED:
                db += by_b
            else:
                tl.store(dB + sums, tl.sum(by_b, axis=0), mask=n < states)
            if C_FIXED:
                dc += by_c
            else:
                tl.store(dC + sums, tl.sum(by_c, axis=0), mask=n < states)
            by_drive = tl.sum(dh * b, axis=1)
            dh = dh * tl.exp(dt[:, None] * a)
            by_power = dh * before
            da += by_power * dt[:, None]
            by_step = by_drive * x + tl.sum(by_power * a, axis=1)
            if SOFT:
                by_step = by_step / (1.0 + tl.exp(-raw))
            tl.store(ddelta + at, by_step, mask=inside)
            tl.store(du + at, by_drive * dt + g * skip, mask=inside)
        tl.debug_barrier()
    corner = item * channels * states + plane
    tl.store(dA + corner, da, mask=mask)
    if B_FIXED:
        tl.store(dB + corner, db, mask=mask)
    if C_FIXED:
        tl.store(dC + corner, dc, mask=mask)
    tl.store(dD + item * channels + d, dskip, mask=inside)


class _Prepared:
    """A `Scan` as the kernels read it: contiguous (B, L, D), matrices (B, G, L, N) or fixed (D, N)."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.batch, self.channels, self.length = scan.u.shape
        self.states, self.groups = scan.A.shape[1], scan.groups
        self.blocks = triton.cdiv(self.channels // self.groups, BLOCK)
        self.grid = (self.batch, self.groups, self.blocks)
        zeros = self.new(self.channels).zero_()
        self.tensors = (
            self.last(scan.u),
            self.last(scan.delta),
            scan.A.to(scan.kind).contiguous(),
            self._matrix(scan.B),
            self._matrix(scan.C),
            zeros if scan.D is None else scan.D.to(scan.kind).contiguous(),
            self.new(0) if scan.z is None else self.last(scan.z),
            zeros if scan.delta_bias is None else scan.delta_bias.to(scan.kind).contiguous(),
        )
        self.sizes = (self.length, self.channels, self.states, self.groups, scan.chunks)
        self.constants: dict[str, Any] = {
            "SOFT": scan.delta_softplus,
            "GATED": scan.z is not None,
            "B_FIXED": scan.B.ndim == 2,
            "C_FIXED": scan.C.ndim == 2,
            "CHUNK": CHUNK,
            "BLOCK": BLOCK,
            "STATES": triton.next_power_of_2(self.states),
        }

    def new(self, *shape: int) -> Tensor:
        """Memory of the computing type."""
        return self.scan.u.new_empty(shape, dtype=self.scan.kind)

    def last(self, x: Tensor) -> Tensor:
        """(B, D, L) to a contiguous (B, L, D)."""
        return x.to(self.scan.kind).transpose(1, 2).contiguous()

    def _matrix(self, matrix: Tensor) -> Tensor:
        if matrix.ndim == 2:
            return matrix.to(self.scan.kind).contiguous()
        return self.scan.by_group(matrix).transpose(2, 3).contiguous()


def forward(scan: Scan, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.forward`."""
    p = _Prepared(scan)
    out, state = p.new(p.batch, p.length, p.channels), p.new(p.batch, p.channels, p.states)
    kept = p.new(p.batch, scan.chunks if save else 0, p.channels, p.states)
    if state.numel():
        _forward_kernel[p.grid](*p.tensors, out, state, kept, *p.sizes, SAVE=save, **p.constants)
    return torch.empty_like(scan.u).copy_(out.transpose(1, 2)), state, kept


def backward(scan: Scan, dout: Tensor, kept: Tensor) -> Gradients:
    """As `cpu.backward`."""
    p = _Prepared(scan)
    du, ddelta, dz = (p.new(p.batch, p.length, p.channels) for _ in range(3))
    fixed, per_step = (p.batch, p.channels, p.states), (p.blocks, p.batch, p.groups, p.length, p.states)
    dA, dD = p.new(*fixed), p.new(p.batch, p.channels)
    dB, dC = (p.new(*(fixed if matrix.ndim == 2 else per_step)) for matrix in (scan.B, scan.C))
    scratch = p.new(p.batch * p.groups * p.blocks, CHUNK + 1, BLOCK, triton.next_power_of_2(p.states))
    if dA.numel():
        results = du, ddelta, dz, dA, dB, dC, dD
        _backward_kernel[p.grid](
            *p.tensors, p.last(dout), kept.contiguous(), scratch, *results, *p.sizes, **p.constants
        )

    def like(x: Tensor, given: Tensor | None) -> Tensor:
        return p.new(0) if given is None else torch.empty_like(given).copy_(x)

    def matrix(x: Tensor, given: Tensor) -> Tensor:
        if given.ndim == 2:
            return x.sum(0).to(given.dtype)
        return scan.ungroup(x.sum(0).transpose(2, 3), given).contiguous()

    return Gradients(
        u=like(du.transpose(1, 2), scan.u),
        delta=like(ddelta.transpose(1, 2), scan.delta),
        A=dA.sum(0).to(scan.A.dtype),
        B=matrix(dB, scan.B),
        C=matrix(dC, scan.C),
        D=like(dD.sum(0), scan.D),
        z=like(dz.transpose(1, 2), scan.z),
        delta_bias=like(ddelta.sum((0, 1)), scan.delta_bias),
    )
