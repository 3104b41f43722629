"""Vim's token mixer: selective state space scans along a sequence and against it.

Letters: B batch, L tokens, d width, E = expand * d inner width, N states a channel, R = ceil(d / 16) rank of
the steps. Everything is kept channel-last (B, L, E); the scan reads transposed views in place.

What a naive reading gets wrong: `dt_proj.bias` is added once, inside the scan and before the softplus, not by
the projection; the gate z is reversed together with the input; halving the sum of both directions belongs to
the released models and to type 'v2' alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import unknown
from opsin.core.layers.causal_conv import causal_conv1d
from opsin.core.layers.weight_init import init_scan_steps
from opsin.core.ops.selective_scan import selective_scan

Direction = Literal["v2", "v1", "none"]


class BiMamba(nn.Module):
    """The mixer: (B, L, d) to the same shape.

    Args:
        d_model: width d.
        d_state: states a channel N.
        d_conv: taps of the causal depth-wise convolution.
        expand: inner width as a multiple of d.
        dt_rank: rank R of the steps; 'auto' is ceil(d / 16).
        bimamba_type: 'v2' has a second convolution, projections, A and D for the way back (suffix `_b`); 'v1'
            a second A alone; 'none' goes one way.
        if_divide_out: whether type v2 halves the sum of its directions.
        init_layer_scale: what the factors `gamma` (d,) on the output begin with; None for no factors.
        conv_bias: whether the convolutions have a bias.
        bias: whether the projections in and out have one.
        depth: blocks of the network; the output projection begins smaller by its square root.

    Raises:
        UserError: for an unknown `bimamba_type`.
    """

    conv1d: nn.Conv1d
    conv1d_b: nn.Conv1d
    x_proj: nn.Linear
    x_proj_b: nn.Linear
    dt_proj: nn.Linear
    dt_proj_b: nn.Linear
    A_log: Tensor
    A_b_log: Tensor
    D: Tensor
    D_b: Tensor

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        bimamba_type: Direction = "v2",
        if_divide_out: bool = True,
        init_layer_scale: float | None = None,
        conv_bias: bool = True,
        bias: bool = False,
        depth: int = 1,
    ) -> None:
        super().__init__()
        if bimamba_type not in ("v2", "v1", "none"):
            raise unknown("bimamba_type", str(bimamba_type), ("v2", "v1", "none"))
        inner, rank = int(expand * d_model), math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.split = (rank, d_state, d_state)
        self.bimamba_type, self.if_divide_out, self.depth = bimamba_type, if_divide_out, depth
        self.gamma = (
            None
            if init_layer_scale is None
            else nn.Parameter(torch.full((d_model,), float(init_layer_scale)))
        )
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        for suffix in ("", "_b") if bimamba_type == "v2" else ("",):
            self.add_module(f"conv1d{suffix}", nn.Conv1d(inner, inner, d_conv, groups=inner, bias=conv_bias))
            self.add_module(f"x_proj{suffix}", nn.Linear(inner, sum(self.split), bias=False))
            self.add_module(f"dt_proj{suffix}", nn.Linear(rank, inner))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(inner)))
        for name in ("A_log", "A_b_log") if bimamba_type != "none" else ("A_log",):
            rates = torch.arange(1, d_state + 1, dtype=torch.float32).log()
            self.register_parameter(name, nn.Parameter(rates.repeat(inner, 1)))
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self._init_weights()

    def _init_weights(self) -> None:
        """The authors' initialisation where PyTorch's differs: steps of 0.001 to 0.1 on the way forward."""
        for module in self.children():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.dt_proj.weight, -(self.split[0] ** -0.5), self.split[0] ** -0.5)
        init_scan_steps(self.dt_proj.bias)
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
            self.out_proj.weight /= math.sqrt(self.depth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) to the same shape."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        terms = self._terms(u, self.conv1d, self.x_proj, self.dt_proj)
        y = _scan(terms, z, self.A_log, self.D, self.dt_proj.bias)
        if self.bimamba_type == "v1":
            back = tuple(term.flip(1) for term in terms)
            y = y + _scan(back, z.flip(1), self.A_b_log, self.D, self.dt_proj.bias).flip(1)
        if self.bimamba_type == "v2":
            back = self._terms(u.flip(1), self.conv1d_b, self.x_proj_b, self.dt_proj_b)
            y = y + _scan(back, z.flip(1), self.A_b_log, self.D_b, self.dt_proj_b.bias).flip(1)
            y = y / 2 if self.if_divide_out else y
        out = self.out_proj(y)
        return out if self.gamma is None else out * self.gamma

    def _terms(
        self, u: Tensor, conv1d: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear
    ) -> tuple[Tensor, ...]:
        """The scan's input (B, L, E), raw steps (B, L, E) and matrices B and C (B, L, N)."""
        u = F.silu(causal_conv1d(u, conv1d.weight, conv1d.bias))
        low, B, C = x_proj(u).split(self.split, dim=-1)
        return u, F.linear(low, dt_proj.weight), B, C


def _scan(terms: tuple[Tensor, ...], z: Tensor, A_log: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """The gated scan of channel-last terms (B, L, …); A, D and the recurrence are at least float32."""
    u, delta, B, C, gate = (term.transpose(1, 2) for term in (*terms, z))
    A = -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32)))
    return selective_scan(u, delta, A, B, C, D, gate, delta_bias, delta_softplus=True).transpose(1, 2)
