"""Which keys a query sees along one axis, as NATTEN defines it.

A dilation d splits the axis into d classes of positions congruent modulo d; a query sees its own class alone.
Of the class's n members it sees K in a row, itself in the middle; at the ends the window is slid inwards
until it fits, so that every query sees K keys. A key's entry in the bias table is its distance in members,
plus K - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


def neighbours(length: int, kernel: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The positions (L, K) that each position of an axis sees, and their entries in the bias table (L, K)."""
    positions = torch.arange(length, device=device)
    phase, member = positions % dilation, positions // dilation
    members = (length - phase + dilation - 1) // dilation
    start = torch.minimum((member - kernel // 2).clamp(min=0), members - kernel)
    seen = start[:, None] + torch.arange(kernel, device=device)
    return seen * dilation + phase[:, None], seen - member[:, None] + kernel - 1


def classes(length: int, dilation: int) -> list[tuple[int, int]]:
    """The classes of an axis in runs of equally many members: first class and number of classes."""
    longer = length % dilation
    return [run for run in ((0, longer), (longer, dilation - longer)) if run[1]]


@dataclass(frozen=True)
class Tiles:
    """Tiles of queries along one axis that see their keys alike.

    Attributes:
        seen: (Q, K') whether a query of a tile sees a key among all K' that the tile sees.
        entries: (Q, K') entries in the bias table, 0 where the key is not seen.
        places: first query and first key of each tile.
    """

    seen: Tensor
    entries: Tensor
    places: list[tuple[int, int]]


def tiles(members: int, kernel: int, size: int, device: torch.device) -> list[Tiles]:
    """Cuts a class of `members` queries into tiles of `size`."""

    def start(query: int) -> int:
        return min(max(query - kernel // 2, 0), members - kernel)

    def windows(first: int) -> tuple[int, ...]:
        """Where the window of each query of the tile begins, from the first query."""
        return tuple(start(query) - first for query in range(first, min(first + size, members)))

    found = []
    for begins, firsts in groupby(range(0, members, size), windows):
        begin = torch.tensor(begins, device=device)[:, None]
        keys = torch.arange(begins[0], begins[-1] + kernel, device=device)
        queries = torch.arange(len(begins), device=device)[:, None]
        seen = (keys >= begin) & (keys < begin + kernel)
        entries = (keys - queries + kernel - 1).masked_fill(~seen, 0)
        found.append(Tiles(seen, entries, [(first, first + begins[0]) for first in firsts]))
    return found
