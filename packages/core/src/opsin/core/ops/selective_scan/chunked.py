"""Selective scan in vectorised PyTorch, for any device: what runs where there is neither Numba nor Triton.

Only the recurrence itself goes step by step (one fused multiply-add over all channels and states);
exponentials, inputs and outputs are computed for a chunk of `CHUNK` steps at once. So nothing larger than a
chunk's (T, B, D, N) is made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.selective_scan.arguments import CHUNK, Gradients, Scan
from opsin.core.ops.selective_scan.reference import over_time


class _Chunk:
    """The recurrence's terms in steps `start` to `start + CHUNK`, time first: (T, B, D), (T, B, D, N)."""

    def __init__(self, scan: Scan, start: int) -> None:
        kind, steps = scan.kind, slice(start, start + CHUNK)
        self.u = scan.u[..., steps].to(kind).permute(2, 0, 1)
        self.raw = scan.delta[..., steps].to(kind).permute(2, 0, 1)
        if scan.delta_bias is not None:
            self.raw = self.raw + scan.delta_bias.to(kind)
        self.dt = F.softplus(self.raw) if scan.delta_softplus else self.raw
        self.B, self.C = (
            over_time(
                x.to(kind) if x.ndim == 2 else x[..., steps].to(kind), scan.u[..., steps].shape
            ).permute(3, 0, 1, 2)
            for x in (scan.B, scan.C)
        )
        self.decay = torch.exp(self.dt[..., None] * scan.A.to(kind))
        self.drive = (self.dt * self.u)[..., None] * self.B

    def states(self, before: Tensor) -> Tensor:
        """The states (T + 1, B, D, N) from that before the chunk to that after it."""
        states = before.new_empty(self.u.shape[0] + 1, *before.shape)
        states[0] = before
        for t in range(self.u.shape[0]):
            torch.addcmul(self.drive[t], self.decay[t], states[t], out=states[t + 1])
        return states


def forward(scan: Scan, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.forward`."""
    state = scan.u.new_zeros(scan.u.shape[0], *scan.A.shape, dtype=scan.kind)
    out, kept = torch.empty_like(scan.u), []
    for start in range(0, scan.u.shape[2], CHUNK):
        chunk = _Chunk(scan, start)
        kept.append(state)
        states = chunk.states(state)
        y = (chunk.C * states[1:]).sum(-1).permute(1, 2, 0)
        if scan.D is not None:
            y = y + scan.D.to(scan.kind)[:, None] * chunk.u.permute(1, 2, 0)
        if scan.z is not None:
            y = y * F.silu(scan.z[..., start : start + CHUNK].to(scan.kind))
        out[..., start : start + CHUNK] = y
        state = states[-1].clone()
    saved = torch.stack(kept, 1) if save and kept else state.new_empty(state.shape[0], 0, *scan.A.shape)
    return out, state, saved


def backward(scan: Scan, dout: Tensor, kept: Tensor) -> Gradients:
    """As `cpu.backward`."""
    wide = {
        name: torch.zeros_like(t, dtype=scan.kind)
        for name, t in scan._asdict().items()
        if isinstance(t, Tensor)
    }
    dstate = kept.new_zeros(scan.u.shape[0], *scan.A.shape)
    for k in reversed(range(scan.chunks)):
        dstate = _backward_chunk(scan, k * CHUNK, dout, kept[:, k], dstate, wide)
    present = {name: gradient.to(getattr(scan, name).dtype) for name, gradient in wide.items()}
    return Gradients(**{name: present.get(name, kept.new_empty(0)) for name in Gradients._fields})


def _backward_chunk(
    scan: Scan, start: int, dout: Tensor, before: Tensor, dstate: Tensor, wide: dict[str, Tensor]
) -> Tensor:
    """Adds a chunk's gradients to `wide`; takes the gradient by the state after it, gives that before."""
    chunk, steps = _Chunk(scan, start), slice(start, start + CHUNK)
    states = chunk.states(before)
    g = dout[..., steps].to(scan.kind).permute(2, 0, 1)
    if scan.z is not None:
        z = scan.z[..., steps].to(scan.kind).permute(2, 0, 1)
        opening = torch.sigmoid(z)
        y = (chunk.C * states[1:]).sum(-1)
        if scan.D is not None:
            y = y + scan.D.to(scan.kind) * chunk.u
        wide["z"][..., steps] = (g * y * opening * (1 + z * (1 - opening))).permute(1, 2, 0)
        g = g * z * opening
    by_state = g[..., None] * chunk.C
    for t in reversed(range(chunk.u.shape[0])):
        by_state[t].addcmul_(dstate, chunk.decay[t + 1]) if t + 1 < chunk.u.shape[0] else by_state[t].add_(
            dstate
        )
        dstate = by_state[t]
    by_power = by_state * chunk.decay * states[:-1]
    by_drive = (by_state * chunk.B).sum(-1)
    by_step = by_drive * chunk.u + (by_power * scan.A.to(scan.kind)).sum(-1)
    if scan.delta_softplus:
        by_step = by_step * torch.sigmoid(chunk.raw)
    by_u = by_drive * chunk.dt
    if scan.D is not None:
        by_u = by_u + g * scan.D.to(scan.kind)
        wide["D"] += (g * chunk.u).sum((0, 1))
    wide["u"][..., steps], wide["delta"][..., steps] = by_u.permute(1, 2, 0), by_step.permute(1, 2, 0)
    wide["A"] += (by_power * chunk.dt[..., None]).sum((0, 1))
    if scan.delta_bias is not None:
        wide["delta_bias"] += by_step.sum((0, 1))
    _add_matrix(scan.B, wide["B"], (chunk.dt * chunk.u)[..., None] * by_state, steps)
    _add_matrix(scan.C, wide["C"], g[..., None] * states[1:], steps)
    return by_state[0] * chunk.decay[0]


def _add_matrix(matrix: Tensor, gradient: Tensor, by_channel: Tensor, steps: slice) -> None:
    """Sums a gradient (T, B, D, N) over what a B or C is shared by."""
    if matrix.ndim == 2:
        gradient += by_channel.sum((0, 1))
    elif matrix.ndim == 3:
        gradient[..., steps] = by_channel.sum(2).permute(1, 2, 0)
    else:
        gradient[..., steps] = by_channel.unflatten(2, (matrix.shape[1], -1)).sum(3).permute(1, 2, 3, 0)
