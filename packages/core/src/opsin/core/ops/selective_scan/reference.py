"""Selective scan as a plain loop over time: the definition that every other implementation is tested against.

Letters: B batch, D channels, N states a channel, L steps, G groups of channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` step by step; arguments as there, but for two.

    `initial_state` (B, D, N) is the state before the first step, zeros without it; the state comes back
    always.

    Returns:
        The output (B, D, L) in u's type, and the state (B, D, N) after the last step, differentiable.
    """
    kind = torch.promote_types(u.dtype, torch.float32)
    dt = delta.to(kind) if delta_bias is None else delta.to(kind) + delta_bias.to(kind)[:, None]
    if delta_softplus:
        dt = F.softplus(dt)
    x, A = u.to(kind), A.to(kind)
    B_BDNL, C_BDNL = over_time(B.to(kind), u.shape), over_time(C.to(kind), u.shape)
    h = x.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(kind)
    steps = []
    for t in range(u.shape[2]):
        dt_BD1 = dt[:, :, t, None]
        h = torch.exp(dt_BD1 * A) * h + dt_BD1 * B_BDNL[..., t] * x[:, :, t, None]
        steps.append((C_BDNL[..., t] * h).sum(-1))
    y = torch.stack(steps, dim=2) if steps else x
    if D is not None:
        y = y + D.to(kind)[:, None] * x
    if z is not None:
        y = y * F.silu(z.to(kind))
    return y.to(u.dtype), h


def over_time(matrix: Tensor, shape: torch.Size) -> Tensor:
    """B or C in any of its three forms as a (B, D, N, L) view; `shape` is u's (B, D, L)."""
    batch, channels, length = shape
    if matrix.ndim == 2:
        return matrix[None, :, :, None].expand(batch, -1, -1, length)
    if matrix.ndim == 3:
        return matrix[:, None].expand(-1, channels, -1, -1)
    return matrix.repeat_interleave(channels // matrix.shape[1], dim=1)
