"""Merging like tokens of an image: bipartite soft matching (ToMe, arXiv 2210.09461 and 2303.17604).

One token of every cell of sy x sx tokens is a destination; all others are sources. Every source knows the
destination that it resembles most by cosine; of the sources, the r that resemble theirs most are merged
into them, as means in which the destination counts. Cells cover the largest top-left part of the map that
they fill; beyond it all tokens are sources.

A matching keeps the sources in order of likeness, so merges of different strength share it, as agents and
kept tokens do in AgentSD.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


@dataclass(frozen=True)
class Matching:
    """Which token goes where; indices are (S,), (D,) or (B, S).

    Attributes:
        sources: places of the S sources among the N tokens.
        destinations: places of the D destinations.
        order: for every image, the sources from the one most like its destination to the least (B, S).
        target: the destination of each source, in that order (B, S).
    """

    sources: Tensor
    destinations: Tensor
    order: Tensor
    target: Tensor

    def merged(self, count: int) -> int:
        """How many of `count` sources there are to be merged."""
        return max(0, min(count, len(self.sources)))

    def merge(self, x: Tensor, count: int) -> Tensor:
        """Tokens (B, N, C) with `count` sources merged to (B, N - count, C): other sources, destinations."""
        count = self.merged(count)
        sources = _take(x[:, self.sources], self.order)
        gone, kept = sources[:, :count], sources[:, count:]
        into = self.target[:, :count, None].expand_as(gone)
        destinations = x[:, self.destinations].scatter_reduce(1, into, gone, "mean", include_self=True)
        return torch.cat((kept, destinations), 1)

    def unmerge(self, x: Tensor, count: int) -> Tensor:
        """The way back: (B, N - count, C) to (B, N, C); merged sources are copies of their destination."""
        count = self.merged(count)
        kept, destinations = x.split((len(self.sources) - count, len(self.destinations)), 1)
        sources = torch.cat((_take(destinations, self.target[:, :count]), kept), 1)
        out = x.new_empty(len(x), len(self.sources) + len(self.destinations), x.shape[2])
        out[:, self.destinations] = destinations
        places = self.sources[self.order]
        return out.scatter(1, places[..., None].expand_as(sources), sources)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, M) of (B, N, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def match(
    x: Tensor, size: Grid, cell: Grid, *, use_rand: bool = False, generator: torch.Generator | None = None
) -> Matching:
    """Matches tokens (B, N, C) of a map of `size`.

    Args:
        x: tokens by which likeness is judged, in float32 whatever their type.
        size: rows and columns of the map, N of them.
        cell: rows and columns of a cell.
        use_rand: whether a cell's destination is drawn; else it is the top-left one.
        generator: of the draw, on the CPU; torch's global one if None.
    """
    destinations, sources = _split(size, cell, use_rand, generator)
    destinations, sources = destinations.to(x.device), sources.to(x.device)
    normed = F.normalize(x.float(), dim=-1)
    likeness, target = (normed[:, sources] @ normed[:, destinations].transpose(1, 2)).max(-1)
    order = likeness.argsort(-1, descending=True)
    return Matching(sources, destinations, order, target.gather(1, order))


def _split(
    size: Grid, cell: Grid, use_rand: bool, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Places of the destinations and of the sources of a map."""
    rows, columns = size[0] // cell[0], size[1] // cell[1]
    inside = torch.zeros(rows, columns, dtype=torch.long)
    if use_rand:
        inside = torch.randint(cell[0] * cell[1], (rows, columns), generator=generator)
    y = torch.arange(rows)[:, None] * cell[0] + inside // cell[1]
    x = torch.arange(columns) * cell[1] + inside % cell[1]
    destinations = (y * size[1] + x).flatten()
    is_source = torch.ones(size[0] * size[1], dtype=torch.bool)
    is_source[destinations] = False
    return destinations, is_source.nonzero()[:, 0]
