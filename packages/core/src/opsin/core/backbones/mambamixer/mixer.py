"""MambaMixer: Efficient Selective State Space Models with Dual Token and Channel Selection.

arXiv 2403.19888. No code was published; these modules are written from the abstract, the repository's one
figure and what is known of the paper, and what it leaves open is chosen here (docs/systems/mambamixer.md says
which).

Letters: B batch, L tokens, D width, E = expand * D inner width, N states a channel. A selective mixer scans
its tokens by state spaces (S6) whose steps and matrices follow the input, in one order or several. Used along
the tokens it is a token mixer; used on the transposed matrix, a channel mixer, whose "tokens" are channels
and whose width is the number of tokens.

What a naive reading gets wrong: a squeeze-and-excitation or an MLP is no selective channel mixer; channels
have no order of their own, so they are scanned both ways, and still a permutation of channels changes what
trained weights compute; one gate serves all scans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.mambamixer.averaging import MixerStack
from opsin.core.errors import UserError
from opsin.core.layers.causal_conv import causal_conv1d
from opsin.core.layers.scan_routes import ordered, restored
from opsin.core.layers.weight_init import init_scan_steps
from opsin.core.ops.selective_scan import selective_scan
from opsin.registry import MODELS

EPS = 1e-5
ONE_WAY, BOTH_WAYS, CROSS_SCAN = (1,), (1, 2), (1, 2, 3, 4)  # routes of `layers.scan_routes`


class S6(nn.Module):
    """Causal convolution, SiLU, selective state space with skip weights; parameters as in Mamba.

    Args:
        channels: channels E.
        d_state: states a channel N.
        d_conv: taps of the convolution.
    """

    def __init__(self, channels: int, *, d_state: int = 16, d_conv: int = 4) -> None:
        super().__init__()
        rank = math.ceil(channels / 16)
        self.split = (rank, d_state, d_state)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
        self.x_proj = nn.Linear(channels, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        rates = torch.arange(1, d_state + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(rates.repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.reset_steps()

    def reset_steps(self) -> None:
        """The steps' first weights, which no later initialisation of linear layers may replace."""
        rank = self.split[0]
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        init_scan_steps(self.dt_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """A sequence (B, L, E) to the same shape; step t sees steps up to t."""
        u = F.silu(causal_conv1d(x, self.conv1d.weight, self.conv1d.bias))
        low, B, C = self.x_proj(u).split(self.split, dim=-1)
        delta = F.linear(low, self.dt_proj.weight)  # the scan adds the bias
        A = -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))
        u, delta, B, C = (term.transpose(1, 2) for term in (u, delta, B, C))
        y = selective_scan(u, delta, A, B, C, self.D, delta_bias=self.dt_proj.bias, delta_softplus=True)
        return y.transpose(1, 2)


class SelectiveMixer(nn.Module):
    """Scans of a map in several orders, each by an S6 of its own, gated and summed.

    Args:
        width: width D of the cells.
        routes: orders of the scans, see `layers.scan_routes`.
        expand: inner width as a multiple of D.
        d_state: states a channel N.
        d_conv: taps of the convolutions before the scans.

    Raises:
        UserError: if no inner width is left.
    """

    def __init__(
        self,
        width: int,
        *,
        routes: Sequence[int] = CROSS_SCAN,
        expand: float = 2.0,
        d_state: int = 16,
        d_conv: int = 4,
    ) -> None:
        super().__init__()
        inner = int(expand * width)
        if inner < 1:
            raise UserError(f"width {width} times expand {expand} leaves a selective mixer no channels")
        self.width, self.routes = width, tuple(routes)
        self.in_proj = nn.Linear(width, inner, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.scans = nn.ModuleList(S6(inner, d_state=d_state, d_conv=d_conv) for _ in self.routes)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, H, W, D) to the same shape."""
        u = self.in_proj(x)
        scanned = [
            restored(scan(ordered(u, (route,))), (route,), u)
            for scan, route in zip(self.scans, self.routes, strict=True)
        ]
        # every scan is multiplied by the same gate, so their sum may be
        return self.out_proj(sum(scanned[1:], scanned[0]) * F.silu(self.gate_proj(x)))


@MODELS.register_module()
class SelectiveTokenMixer(SelectiveMixer):
    """A selective mixer of tokens (B, L, D).

    Args:
        width: width D of the tokens.
        bidirectional: whether the tokens are scanned backwards too; else the mixer is causal.
        expand, d_state, d_conv: see `SelectiveMixer`.
    """

    def __init__(
        self,
        width: int,
        *,
        bidirectional: bool = True,
        expand: float = 2.0,
        d_state: int = 16,
        d_conv: int = 4,
    ) -> None:
        routes = BOTH_WAYS if bidirectional else ONE_WAY
        super().__init__(width, routes=routes, expand=expand, d_state=d_state, d_conv=d_conv)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, D) to the same shape."""
        return super().forward(x[:, None])[:, 0]  # a map of one row


@MODELS.register_module()
class SelectiveChannelMixer(SelectiveMixer):
    """A selective mixer of the channels of (B, L, D): both ways over D, each channel a token of width L.

    Args:
        length: number of tokens L, which its parameters depend on.
        expand, d_state, d_conv: see `SelectiveMixer`.

    Raises:
        UserError: in `forward`, for another number of tokens.
    """

    def __init__(self, length: int, *, expand: float = 1.0, d_state: int = 16, d_conv: int = 4) -> None:
        super().__init__(length, routes=BOTH_WAYS, expand=expand, d_state=d_state, d_conv=d_conv)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, D) to the same shape."""
        if x.shape[1] != self.width:
            raise UserError(
                f"a selective channel mixer made for {self.width} tokens was given {x.shape[1]}",
                "its parameters are for one number of tokens",
            )
        return super().forward(x.transpose(1, 2)[:, None])[:, 0].transpose(1, 2)


@MODELS.register_module()
class MambaMixer(nn.Module):
    """Token and channel mixers in turn on tokens (B, L, D), linked by weighted averages of all before them.

    Args:
        length: number of tokens L.
        width: width D.
        depth: pairs of a token and a channel mixer.
        bidirectional: whether the token mixers go both ways.
        token_expand: inner width of the token mixers as a multiple of D.
        channel_expand: inner width of the channel mixers as a multiple of L.
        d_state: states a channel N.
    """

    def __init__(
        self,
        length: int,
        width: int,
        depth: int = 1,
        *,
        bidirectional: bool = True,
        token_expand: float = 2.0,
        channel_expand: float = 1.0,
        d_state: int = 16,
    ) -> None:
        super().__init__()
        tokens = (
            SelectiveTokenMixer(width, bidirectional=bidirectional, expand=token_expand, d_state=d_state)
            for _ in range(depth)
        )
        channels = (
            SelectiveChannelMixer(length, expand=channel_expand, d_state=d_state) for _ in range(depth)
        )
        self.stack = MixerStack(
            [nn.Sequential(nn.LayerNorm(width, eps=EPS), mixer) for mixer in tokens],
            [nn.Sequential(nn.LayerNorm(width, eps=EPS), mixer) for mixer in channels],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, D) to the same shape."""
        return self.stack(x)
