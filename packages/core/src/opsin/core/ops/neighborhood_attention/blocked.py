"""Neighborhood attention in matrix products, for any device.

Queries go in tiles; a tile multiplies all keys that any of its queries sees, and masks those that a query
does not see. So keys and values are read once a tile and not once a query, and no more than `BUDGET` scores
exist at a time, whatever the map's size. The backward pass computes the scores again, tile by tile. A NaN or
an infinity makes NaN of whole tiles of outputs, not of those alone whose queries see it.

Letters: B batch, M classes of a dilation (see `windows`), Q queries of a tile, K keys that the tile sees, D
width of a head. Maps are (B, heads, *sizes, D), of any strides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.neighborhood_attention.arguments import Attention, Gradients
from opsin.core.ops.neighborhood_attention.windows import Tiles, classes, tiles

TILE = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}  # queries of a tile along each axis, by number of axes
BUDGET = 1 << 20  # scores that exist at a time (or those of one tile in one head of one image, if more)

Index = tuple[slice, ...]


def forward(given: Attention) -> Tensor:
    """The attention, contiguous and of q's type."""
    out = given.q.new_empty(given.q.shape)
    for block in _blocks(given):
        q, k, v, result = (block.members(x) for x in (*given[:3], out))
        for queries, keys in block.tiles(q):
            weight = block.weights(q[queries], k[keys], queries[1])
            result[queries] = (weight @ block.flat(v[keys])).view(result[queries].shape)
    return out


def backward(given: Attention, dout: Tensor) -> Gradients:
    """Gradients by every tensor of `given`, contiguous, from that by the output."""
    dq, dk, dv = (x.new_zeros(x.shape, dtype=given.kind) for x in given[:3])
    drpb = dq.new_zeros((0,) if given.rpb is None else given.rpb.shape)
    for block in _blocks(given):
        q, k, v, g, by_q, by_k, by_v = (block.members(x) for x in (*given[:3], dout, dq, dk, dv))
        by_bias = dq.new_zeros(block.bias.shape)
        for queries, keys in block.tiles(q):
            weight = block.weights(q[queries], k[keys], queries[1])
            slope = block.flat(g[queries])
            by_v[keys] += (weight.mT @ slope).view(by_v[keys].shape)
            by_score = slope @ block.flat(v[keys]).mT
            by_score = weight * (by_score - (weight * by_score).sum(-1, keepdim=True))
            by_q[queries] = (by_score @ block.flat(k[keys])).view(by_q[queries].shape)
            by_k[keys] += (by_score.mT @ block.flat(q[queries])).view(by_k[keys].shape)
            by_bias[queries[1]] += by_score.sum((0, 2))[:, None]
        if given.rpb is not None:
            drpb += block.by_entry(by_bias)
    return Gradients(dq.mul_(given.scale), dk.mul_(given.scale), dv, drpb)


class _Block:
    """Tiles that see their keys alike, in classes of equally many members.

    Args:
        given: the attention.
        runs: along each axis the first class and the number of classes.
        kinds: along each axis the tiles.
    """

    def __init__(self, given: Attention, runs: tuple[tuple[int, int], ...], kinds: tuple[Tiles, ...]) -> None:
        self.given, self.runs, self.kinds = given, runs, kinds
        self.axes = len(runs)
        self.bias = self._bias()  # (heads, 1, Q, K), minus infinity where a query does not see a key

    def _bias(self) -> Tensor:
        seen = reduce(
            torch.logical_and, (self._along(axis, kind.seen) for axis, kind in enumerate(self.kinds))
        )
        bias = torch.zeros(seen.shape, dtype=self.given.kind, device=seen.device)
        if self.given.rpb is not None:
            entries: list[slice | Tensor] = [slice(None)]
            entries += [self._along(axis, kind.entries) for axis, kind in enumerate(self.kinds)]
            bias = self.given.rpb.to(self.given.kind)[tuple(entries)]
        bias = bias.masked_fill(~seen, -torch.inf).expand(self.given.q.shape[1], *seen.shape)
        return bias.flatten(1 + self.axes).flatten(1, -2)[:, None]

    def _along(self, axis: int, table: Tensor) -> Tensor:
        """A table (queries, keys) of one axis among those of all axes, queries first."""
        shape = [1] * (2 * self.axes)
        shape[axis], shape[self.axes + axis] = table.shape
        return table.view(shape)

    def members(self, x: Tensor) -> Tensor:
        """A view of a map by class and member: (B, heads, *classes, *members, D)."""
        for axis, (first, count) in enumerate(self.runs):
            length = x.shape[2 + axis]
            x = x.narrow(2 + axis, first, length - first).unfold(2 + axis, count, self.given.dilation[axis])
        members = range(2, 2 + self.axes)
        return x.permute(0, 1, *(self.axes + 1 + member for member in members), *members, 2 + self.axes)

    def tiles(self, x: Tensor) -> Iterator[tuple[Index, Index]]:
        """For each tile the index of its queries and that of its keys in what `members` gives."""
        every_class = (slice(None),) * self.axes
        sizes = [kind.seen.shape for kind in self.kinds]
        for places in product(*(kind.places for kind in self.kinds)):
            queries = tuple(slice(at[0], at[0] + size[0]) for at, size in zip(places, sizes, strict=True))
            keys = tuple(slice(at[1], at[1] + size[1]) for at, size in zip(places, sizes, strict=True))
            for part in self._parts(x):
                yield (*part, *every_class, *queries), (*part, *every_class, *keys)

    def _parts(self, x: Tensor) -> Iterator[tuple[slice, slice]]:
        """Images and heads, so many at a time as the budget of scores allows."""
        batch, heads = x.shape[:2]
        in_a_head = math.prod(count for _, count in self.runs) * math.prod(self.bias.shape[1:])
        fit = max(1, BUDGET // in_a_head)
        some_heads, some_images = max(1, min(heads, fit)), max(1, fit // max(1, heads))
        for image, head in product(range(0, batch, some_images), range(0, heads, some_heads)):
            yield slice(image, image + some_images), slice(head, head + some_heads)

    def flat(self, x: Tensor) -> Tensor:
        """A tile (B, heads, *classes, *members, D) as (B, heads, M, members, D) in the computing type."""
        return x.to(self.given.kind).flatten(2 + self.axes, -2).flatten(2, 1 + self.axes)

    def weights(self, q: Tensor, k: Tensor, heads: slice) -> Tensor:
        """Attention (B, heads, M, Q, K) of a tile's queries to its keys."""
        scores = (self.given.scale * self.flat(q)) @ self.flat(k).mT
        return scores.add_(self.bias[heads]).softmax(-1)

    def by_entry(self, by_bias: Tensor) -> Tensor:
        """The gradient by the bias table, from that by `bias`."""
        sizes = [kind.seen.shape for kind in self.kinds]
        x = by_bias.reshape(-1, *(size[0] for size in sizes), *(size[1] for size in sizes))
        for axis, (kind, kernel) in enumerate(zip(self.kinds, self.given.kernel_size, strict=True)):
            entry = F.one_hot(kind.entries, 2 * kernel - 1).to(x.dtype)
            x = torch.tensordot(x, entry, ([1, 1 + self.axes - axis], [0, 1]))
        return x


def _blocks(given: Attention) -> Iterator[_Block]:
    """All tiles, in blocks of those that see their keys alike."""
    for runs in product(*(classes(*axis) for axis in zip(given.sizes, given.dilation, strict=True))):
        kinds = []
        for axis, (first, _) in enumerate(runs):
            members = -(-(given.sizes[axis] - first) // given.dilation[axis])
            size = TILE[len(runs)][axis]
            kinds.append(tiles(members, given.kernel_size[axis], size, given.q.device))
        for kind in product(*kinds):
            yield _Block(given, runs, kind)
