"""MHS-VM's mixer: heads that scan subspaces along routes of their own, and a gate that fuses the routes.

Letters: B batch, h x w the map, L = h * w, d channels, m channels of a head (d / heads, rounded down), N
states a channel, R rank of the steps. All heads and routes go through one selective scan: its channels are
(head, route, m) and its groups (head, route).

What a naive reading gets wrong: the inner width is d, not 2d as in VMamba, and no projection follows the
gate; the standard deviation over the routes is the unbiased one; without `with_proj` both the norm of the
joined heads and the projection after it are gone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.weight_init import init_scan_steps
from opsin.core.ops.selective_scan import selective_scan
from opsin.core.published import Tensors
from opsin.medical.segmentation.models.mhs_vm.routes import PATTERNS, scan_routes

EPS = 1e-5
ROUTES = 4


class MambaEngine(nn.Module):
    """The selective scan's parameters of one head, a set for each of its four routes.

    Args:
        dim: channels m of the head.
        d_state: states N a channel.
        rank: rank R of the steps; m / 16, rounded up, if None.
    """

    def __init__(self, dim: int, d_state: int = 16, rank: int | None = None) -> None:
        super().__init__()
        rank = rank or math.ceil(dim / 16)
        self.split = (rank, d_state, d_state)
        self.x_proj_weight = nn.Parameter(torch.empty(ROUTES, sum(self.split), dim))
        self.dt_projs_weight = nn.Parameter(torch.empty(ROUTES, dim, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(ROUTES, dim))
        self.A_logs = nn.Parameter(torch.empty(ROUTES * dim, d_state))
        self.Ds = nn.Parameter(torch.ones(ROUTES * dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Mamba's beginning: steps of 0.001 to 0.1, A = -1 … -N."""
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        nn.init.uniform_(self.dt_projs_weight, -(self.split[0] ** -0.5), self.split[0] ** -0.5)
        init_scan_steps(self.dt_projs_bias)
        rates = torch.arange(1, self.A_logs.shape[1] + 1, dtype=torch.float32, device=self.A_logs.device)
        self.A_logs.copy_(rates.log().expand_as(self.A_logs))

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (B, 4, m, L) of the routes to the same shape."""
        return scan_together([self], x[:, None])[:, 0]


def scan_together(engines: list[MambaEngine], x: Tensor) -> Tensor:
    """The scans of several heads as one: sequences (B, heads, 4, m, L) to the same shape."""
    x_proj = torch.stack([engine.x_proj_weight for engine in engines])
    dt_proj = torch.stack([engine.dt_projs_weight for engine in engines])
    terms = torch.einsum("bhkml,hkcm->bhkcl", x, x_proj)
    steps, B, C = (term.flatten(1, 2) for term in terms.split(engines[0].split, dim=3))
    delta = torch.einsum("bgrl,gmr->bgml", steps, dt_proj.flatten(0, 1))
    A_logs = torch.cat([engine.A_logs for engine in engines])
    y = selective_scan(
        x.flatten(1, 3),
        delta.flatten(1, 2),
        -torch.exp(A_logs.to(torch.promote_types(A_logs.dtype, torch.float32))),
        B,
        C,
        torch.cat([engine.Ds for engine in engines]),
        delta_bias=torch.cat([engine.dt_projs_bias.flatten() for engine in engines]),
        delta_softplus=True,
    )
    return y.view_as(x)


class GFU(nn.Module):
    """Scan route attention: the sum of the routes, weighed by how much they disagree.

    The weight is relu(cv - t), where cv is the coefficient of variation over the routes after their least
    value was subtracted. It is a ratio: computed in float32, or better.

    Args:
        t: disagreement below which nothing passes.
    """

    def __init__(self, t: float = 0.5) -> None:
        super().__init__()
        self.t = t

    def forward(self, x: Tensor, dim: int = 1) -> Tensor:
        """(B, 4, …) to (B, …): fuses the routes along `dim`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(dim)
        # the unbiased deviation as a norm: torch.std takes ten times as long over so few
        spread = torch.linalg.vector_norm(wide - mean.unsqueeze(dim), dim=dim) / math.sqrt(x.shape[dim] - 1)
        cv = spread / ((wide - wide.amin(dim, keepdim=True)).mean(dim) + EPS)
        return (wide.sum(dim) * F.relu(cv - self.t)).to(x.dtype)


class ScanHead(nn.Module):
    """One head: what it learns is its engine."""

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        self.mambaeng = MambaEngine(dim, d_state)


class MHSM(nn.Module):
    """Multi-head scan of a map: projection to heads, scans, fusion of the routes, joining the heads.

    Args:
        dim: channels d.
        heads: 1 to 4, of the patterns C, X, S, Z in this order.
        with_proj: whether a norm and a projection join the heads; without, heads * m must be d.
        gfu_t: threshold of the fusion.
        d_state: states N a channel.

    Raises:
        ValueError: for another number of heads, or heads that do not fill `dim` without a projection.
    """

    def __init__(
        self, dim: int, heads: int = 4, *, with_proj: bool = True, gfu_t: float = 0.5, d_state: int = 16
    ) -> None:
        super().__init__()
        if not 1 <= heads <= len(PATTERNS):
            raise ValueError(f"MHSM has 1 to {len(PATTERNS)} heads, not {heads}")
        width = dim // heads
        if not with_proj and width * heads != dim:
            raise ValueError(f"without a projection {heads} heads must divide the {dim} channels")
        self.heads = heads
        self.x_ssproj = nn.Linear(dim, heads * width, bias=False)
        for pattern in PATTERNS[:heads]:
            self.add_module(f"scanhead_{pattern}", ScanHead(width, d_state))
        self.fuse = GFU(gfu_t)
        self.cat_norm = nn.LayerNorm(heads * width, eps=EPS) if with_proj else nn.Identity()
        self.y_proj = nn.Linear(heads * width, dim, bias=False) if with_proj else nn.Identity()

    @property
    def engines(self) -> list[MambaEngine]:
        """The heads' engines, in the order of the patterns."""
        return [self.get_submodule(f"scanhead_{p}.mambaeng") for p in PATTERNS[: self.heads]]  # type: ignore[misc] # built above

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, d) to the same shape."""
        batch, height, width, _ = x.shape
        routes, back = scan_routes(height, width, self.heads, x.device)
        cells = self.x_ssproj(x).flatten(1, 2).unflatten(2, (self.heads, -1))
        cells = cells.permute(0, 2, 3, 1)[:, :, None].expand(-1, -1, ROUTES, -1, -1)
        y = scan_together(self.engines, _taken(cells, routes))
        y = self.fuse(_taken(y, back), dim=2)
        y = y.permute(0, 3, 1, 2).reshape(batch, height, width, -1)
        return self.y_proj(self.cat_norm(y))

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """See `without_twins`."""
        return without_twins(tensors)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """(B, heads, 4, m, L) in the order `index` (heads, 4, L) of each head and route."""
    return x.gather(-1, index[None, :, :, None].expand(x.shape))


def without_twins(tensors: Tensors) -> Tensors:
    """The published tensors, each once: the authors' modules keep two of them under second names too."""
    kept = {name: tensor for name, tensor in tensors.items() if ".seq2seq_engine." not in name}
    for name in [name for name in kept if name.endswith("x_ssproj_W")]:
        kept[name.removesuffix("_W") + ".weight"] = kept.pop(name)
    return kept


class VSSUnGated(nn.Module):
    """The mixer without a gate: depth-wise convolution, SiLU, multi-head scan, norm.

    Args:
        dim: channels d.
        heads: see `MHSM`, as for the next two.
        with_proj: see there.
        gfu_t: see there.
        d_state: states a channel.
        dropout: dropout of the result.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        *,
        with_proj: bool = True,
        gfu_t: float = 0.5,
        d_state: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.mhs = MHSM(dim, heads, with_proj=with_proj, gfu_t=gfu_t, d_state=d_state)
        self.out_norm = nn.LayerNorm(dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def scan(self, x: Tensor) -> Tensor:
        """The normed scan of a map (B, h, w, d), to the same shape."""
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.out_norm(self.mhs(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, d) to the same shape."""
        return self.dropout(self.scan(x))

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """See `without_twins`."""
        return without_twins(tensors)


class VSSGate(VSSUnGated):
    """The mixer of the published networks: the same, between an input projection and a gate.

    Args:
        dim: channels d; the inner width is d too.
        heads: see `MHSM`.
        settings: those of `VSSUnGated`.
    """

    def __init__(self, dim: int, heads: int = 4, **settings: Any) -> None:
        super().__init__(dim, heads, **settings)
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, d) to the same shape."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        return self.dropout(self.scan(x) * F.silu(z))
