"""The relation module of RelationNet++: features of one representation attend to a few key points.

Logits are appearance plus geometry, (W_q f_q / sqrt(d)) . (W_k f_k) + G(k - q); the sum over kinds of key
points is added to the features, and a ReLU follows. G comes from a table that all pairs share. As published,
the table has two axes: a 1x1 convolution on the sine embedding of every offset (x, y), looked up bilinearly.
The embedding is [of x, of y] and the convolution is linear, so that map is a(x) + b(y), and bilinear
interpolation of a sum of functions of one variable is the sum of their linear interpolations. Here the two
tables of one axis each are kept and looked up instead: the same numbers without the 401 x 401 x 256 map
(165 MB), and on a grid of queries with H K + W K look-ups instead of H W K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.biased_attention import biased_attention

TEMPERATURE = 1000.0
"""Longest wavelength of the sine embedding, over 2 pi, in units of the table."""

SMALLEST = 1e-6
"""What table values are raised to before their logarithm."""


class KeyPoints(NamedTuple):
    """The key points of one kind: `features` (N, K, C) and `positions` (N, K, 2), x and y in pixels."""

    features: Tensor
    positions: Tensor


class Place(NamedTuple):
    """Pixel positions of queries (N, *S, C): `x` and `y`, each of a shape that broadcasts to (N, *S).

    On a grid x is (1, 1, W) and y (1, H, 1), and the geometry is looked up once a column and once a row.
    """

    x: Tensor
    y: Tensor


class PositionTable(nn.Module):
    """G(x, y) for every head, looked up in two tables over offsets; beyond them the border counts.

    Args:
        dim: width D of the sine embedding; D / 4 frequencies an axis.
        num_heads: heads.
        base_size: width and height that the tables cover, in units of the scaled offset, half on each side.
        log_scale: whether G is the logarithm of the table's value.

    Raises:
        UserError: if D is not a multiple of 4 or the table is narrower than 2.
    """

    waves_x: Tensor
    waves_y: Tensor

    def __init__(
        self, dim: int, num_heads: int, *, base_size: Sequence[int] = (400, 400), log_scale: bool = True
    ) -> None:
        super().__init__()
        if dim % 4 or min(base_size) < 2:
            raise UserError(
                f"position table of width {dim} and base_size={tuple(base_size)}",
                "the width is a multiple of 4, each size at least 2",
            )
        self.base_size = (int(base_size[0]), int(base_size[1]))
        self.log_scale = log_scale
        self.embedding_transform = nn.Sequential(ConvModule(dim, num_heads, 1, act_cfg=None))
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        for axis, size in zip("xy", self.base_size, strict=True):
            self.register_buffer(f"waves_{axis}", _waves(size, dim // 4), persistent=False)

    @property
    def conv(self) -> nn.Conv2d:
        """The 1x1 convolution from the sine embedding to the heads."""
        return cast(nn.Conv2d, self.embedding_transform[0].conv)

    def tables(self) -> tuple[Tensor, Tensor]:
        """The tables of x (heads, w + 1) and y (heads, h + 1); the latter has the bias."""
        of_x, of_y = self.conv.weight.float().flatten(1).chunk(2, 1)
        bias = cast(Tensor, self.conv.bias).float()
        return of_x @ self.waves_x, of_y @ self.waves_y + bias[:, None]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """G of scaled offsets x and y, (N, *S, K) or broadcastable to it: (N, heads, *S, K), float32."""
        with torch.autocast(x.device.type, enabled=False):
            table_x, table_y = self.tables()
            value = _interpolate(table_x, x.float() / (0.5 * self.base_size[0]))
            value = value + _interpolate(table_y, y.float() / (0.5 * self.base_size[1]))
            return value.clamp(min=SMALLEST).log() if self.log_scale else value

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        """Authors' files hold the sine embedding, which follows from the sizes."""
        state_dict.pop(f"{prefix}base_embedding", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]  # passed on


def _waves(size: int, frequencies: int) -> Tensor:
    """Sines, then cosines, of the offsets -size // 2 … size // 2: (2 * frequencies, size + 1)."""
    offsets = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float32)
    wavelengths = TEMPERATURE ** (torch.arange(frequencies, dtype=torch.float32) / frequencies)
    angles = offsets[None] / wavelengths[:, None]
    return torch.cat((angles.sin(), angles.cos()))


def _interpolate(table: Tensor, place: Tensor) -> Tensor:
    """`table` (heads, S) at `place` (N, …), -1 and 1 its outer edges: (N, heads, …).

    Edges are half a cell beyond the outermost values (`grid_sample` without aligned corners).
    """
    size = table.shape[1]
    cell = (((place + 1) * size - 1) / 2).clamp(0, size - 1)
    lower = cell.detach().floor().clamp(max=size - 2).long()
    return torch.lerp(table[:, lower], table[:, lower + 1], cell - lower).movedim(0, 1)


class PointAttention(nn.Module):
    """Multi-head attention from queries to key points, with the geometry in its logits.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        appearance: whether the logits have the product of queries and keys (an ablation of the paper).

    Raises:
        UserError: if `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, *, appearance: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide a width of {dim}")
        self.dim, self.num_heads, self.appearance = dim, num_heads, appearance
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, keys: Tensor, geometry: Tensor | None) -> Tensor:
        """`query` (N, Q, C), `keys` (N, K, C) and geometry (N, heads, Q, K) to (N, Q, C)."""
        dim = self.dim
        q = self._heads(F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim]))
        packed = F.linear(keys, self.in_proj_weight[dim:], self.in_proj_bias[dim:])
        k, v = (self._heads(part) for part in packed.chunk(2, -1))
        if geometry is None:
            refined = F.scaled_dot_product_attention(q, k, v)
        elif self.appearance:
            refined = biased_attention(q, k, v, geometry.to(q.dtype), q.shape[-1] ** -0.5)
        else:
            refined = geometry.softmax(-1).to(v.dtype) @ v
        projected: Tensor = self.out_proj(refined.transpose(1, 2).flatten(2))
        return projected

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class PointRelation(nn.Module):
    """Strengthens maps, or any other features that have places, by the key points of one or more kinds.

    Args:
        dim: width C of features and keys.
        num_heads: heads.
        num_kinds: kinds of key points; each has an attention of its own.
        base_size: width and height of the position table.
        log_scale: see `PositionTable`.
        shared_positions: one position table for all kinds, or one each.
        positions: another relation's position table to use instead of an own one.
        appearance: whether logits have the appearance term.
        geometry: whether logits have the position term.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        num_kinds: int = 1,
        *,
        base_size: Sequence[int] = (400, 400),
        log_scale: bool = True,
        shared_positions: bool = True,
        positions: nn.Module | None = None,
        appearance: bool = True,
        geometry: bool = True,
    ) -> None:
        super().__init__()
        if not (appearance or geometry):
            raise UserError("a relation without appearance and geometry has no logits", "keep one of them")
        self.decoder = nn.ModuleList(
            PointAttention(dim, num_heads, appearance=appearance) for _ in range(num_kinds)
        )
        self.relative_positional_encoding: nn.Module | None = None
        if geometry:

            def table() -> PositionTable:
                return PositionTable(dim, num_heads, base_size=base_size, log_scale=log_scale)

            if isinstance(positions, nn.ModuleList) and len(positions) != num_kinds:
                raise UserError(
                    f"{len(positions)} position tables for {num_kinds} kinds of key points",
                    "share one table between the kinds too: shared_positions=True",
                )
            shared = shared_positions or positions is not None
            own = positions or (table() if shared else nn.ModuleList(table() for _ in range(num_kinds)))
            self.relative_positional_encoding = own

    def forward(self, query: Tensor, place: Place, kinds: Sequence[KeyPoints], scale: float) -> Tensor:
        """The strengthened features.

        Args:
            query: (N, *S, C).
            place: where they are, in pixels.
            kinds: the key points, one entry a kind.
            scale: pixels in one unit of the position table.

        Returns:
            (N, *S, C); ReLU(query) where the attention gives nothing.
        """
        geometry = self._geometry(place, kinds, scale, query.shape[:-1])
        flat = query.flatten(1, -2)
        refined = [
            attention(flat, keys.features, terms)
            for attention, keys, terms in zip(self.decoder, kinds, geometry, strict=True)
        ]
        return F.relu(query + torch.stack(refined).sum(0).view_as(query))

    def _geometry(
        self, place: Place, kinds: Sequence[KeyPoints], scale: float, shape: torch.Size
    ) -> list[Tensor | None]:
        """The position terms (N, heads, Q, K) of every kind."""
        tables = self.relative_positional_encoding
        if tables is None:
            return [None] * len(kinds)
        terms: list[Tensor | None] = []
        for index, keys in enumerate(kinds):
            table = tables[index] if isinstance(tables, nn.ModuleList) else tables
            x, y = (
                (_beside(keys.positions[..., axis], at) - at[..., None]) / scale
                for axis, at in enumerate(place)
            )
            found = table(x, y)  # (N, heads, *S, K)
            found = found.expand(shape[0], found.shape[1], *shape[1:], found.shape[-1])
            terms.append(found.flatten(2, -2))
        return terms


def _beside(keys: Tensor, at: Tensor) -> Tensor:
    """Positions (N, K) of keys shaped to broadcast with `at[..., None]`."""
    return keys.view(keys.shape[0], *(1,) * (at.ndim - 1), keys.shape[1])
