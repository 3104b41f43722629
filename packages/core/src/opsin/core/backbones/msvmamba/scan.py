"""MSVMamba's scan: one route over a map at full resolution, three more over the map halved.

Letters: B batch, C width of the block, d scanned channels, H x W the map, h x w its half (rounded up), N
states a channel, R rank of the steps. Maps are (B, channels, H, W) in the channels-last memory format, so
that a map's rows are a sequence of tokens (B, HW, d) without a copy.

What a naive reading gets wrong: the three low-resolution routes are ONE sequence of 3hw tokens, through whose
joins the state runs on, with one set of parameters; both convolutions read the same raw projection; the two
releases number their two sets of parameters in opposite order, and differ in the place of the norm and in how
they upsample.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.msvmamba.settings import MSVMambaSettings
from opsin.core.layers.scan_routes import ordered, restored
from opsin.core.layers.weight_init import init_scan_steps
from opsin.core.ops.selective_scan import selective_scan

EPS = 1e-5


class ChannelGate(nn.Module):
    """Squeeze-and-excitation of linear layers without bias: channels times a weight in (0, 1).

    Args:
        channels: channels d.
        reduction: how many times fewer there are between the layers.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, d) to the same shape."""
        return x * self.fc(x.mean((1, 2)))[:, None, None]


class MS2D(nn.Module):
    """What both releases share; a release says in `mix` how the two resolutions are scanned and joined.

    Args:
        dim: width C of the block.
        settings: see `MSVMambaSettings`.
    """

    def __init__(self, dim: int, settings: MSVMambaSettings) -> None:
        super().__init__()
        inner, states = int(settings.ssm_ratio * dim), settings.d_state
        rank = math.ceil(dim / 16) if settings.dt_rank == "auto" else settings.dt_rank
        self.inner, self.split = inner, (rank, states, states)
        self.gated = settings.gate
        self.in_proj = nn.Linear(dim, inner * (2 if self.gated else 1), bias=False)
        self.conv2d = _depthwise(inner, settings.d_conv, 1, settings.conv_bias)
        self.conv2d_b1 = _depthwise(inner, 7, 2, settings.conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(2, sum(self.split), inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(2, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(2, inner))
        self.A_logs = nn.Parameter(torch.empty(2 * inner, states))
        self.Ds = nn.Parameter(torch.ones(2 * inner))
        self.out_norm = nn.LayerNorm(inner, eps=EPS)
        self.se = ChannelGate(inner) if settings.squeeze_excite else nn.Identity()
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._init_scans()

    @torch.no_grad()
    def _init_scans(self) -> None:
        """Mamba's beginning: steps of 0.001 to 0.1, A = -1 … -N."""
        rank, states, _ = self.split
        for weights in self.x_proj_weight:
            nn.init.kaiming_uniform_(weights, a=math.sqrt(5))
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        init_scan_steps(self.dt_projs_bias)
        rates = torch.arange(1, states + 1, dtype=torch.float32, device=self.A_logs.device)
        self.A_logs.copy_(rates.log().expand_as(self.A_logs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        tokens = x.permute(0, 2, 3, 1)
        scanned = F.linear(tokens, self.in_proj.weight[: self.inner]).permute(0, 3, 1, 2)
        full, low = F.silu(self.conv2d(scanned)), F.silu(self.conv2d_b1(scanned))
        y = self.se(self.mix(full.permute(0, 2, 3, 1), low.permute(0, 2, 3, 1)))
        if self.gated:
            y = y * F.silu(F.linear(tokens, self.in_proj.weight[self.inner :]))
        return self.out_proj(y).permute(0, 3, 1, 2)

    @abstractmethod
    def mix(self, full: Tensor, low: Tensor) -> Tensor:
        """Maps (B, H, W, d) and (B, h, w, d) to the scanned and normed map (B, H, W, d)."""

    def scan(self, tokens: Tensor, which: int) -> Tensor:
        """The selective scan of a sequence (B, L, d) with parameter set `which`, to the same shape."""
        terms = F.linear(tokens, self.x_proj_weight[which]).split(self.split, dim=-1)
        steps = F.linear(terms[0], self.dt_projs_weight[which])
        u, delta, B, C = (term.transpose(1, 2) for term in (tokens, steps, *terms[1:]))
        A = -torch.exp(self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)))
        channels = slice(which * self.inner, (which + 1) * self.inner)
        bias = self.dt_projs_bias[which]
        y = selective_scan(
            u, delta, A[channels], B, C, self.Ds[channels], delta_bias=bias, delta_softplus=True
        )
        return y.transpose(1, 2)


class MS2DRelease1(MS2D):
    """Set 0 scans the low resolution; each scan's output is normed; bilinear upsampling."""

    def mix(self, full: Tensor, low: Tensor) -> Tensor:
        """Maps (B, H, W, d) and (B, h, w, d) to (B, H, W, d)."""
        coarse = self.out_norm(self.scan(ordered(low, (2, 3, 4)), 0))
        fine = self.out_norm(self.scan(full.flatten(1, 2), 1)).unflatten(1, full.shape[1:3])
        return fine + _resized(restored(coarse, (2, 3, 4), low), full, "bilinear")


class MS2DRelease2(MS2D):
    """Set 0 scans the full resolution; nearest upsampling; the sum is normed.

    Args:
        dim: width C of the block.
        settings: see `MSVMambaSettings`.
    """

    def __init__(self, dim: int, settings: MSVMambaSettings) -> None:
        super().__init__(dim, settings)
        self.full_routes = (settings.full_resolution_route,)
        self.low_routes = tuple(route for route in (1, 2, 3, 4) if route not in self.full_routes)

    def mix(self, full: Tensor, low: Tensor) -> Tensor:
        """Maps (B, H, W, d) and (B, h, w, d) to (B, H, W, d)."""
        fine = restored(self.scan(ordered(full, self.full_routes), 0), self.full_routes, full)
        coarse = restored(self.scan(ordered(low, self.low_routes), 1), self.low_routes, low)
        return self.out_norm(fine + _resized(coarse, full, "nearest"))


def _resized(tokens: Tensor, like: Tensor, mode: str) -> Tensor:
    """A map (B, h, w, d) at the size of the map `like` (B, H, W, d)."""
    maps = F.interpolate(tokens.permute(0, 3, 1, 2), size=like.shape[1:3], mode=mode)
    return maps.permute(0, 2, 3, 1)


def _depthwise(channels: int, kernel_size: int, stride: int, bias: bool) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(channels, channels, kernel_size, stride, padding, groups=channels, bias=bias)
