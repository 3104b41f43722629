"""Panoptic maps of large pictures: the maps of tiles put together, things joined over the seams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from opsin.core.engine.tiled import Piece
from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET

SAME = 0.5
"""Things of two tiles are one if they share more than this of the smaller, where both tiles look."""

UNSEEN = -1  # of pixels that no tile has looked at yet

Map = NDArray[np.int32]


def joined(pieces: Iterable[Piece], size: tuple[int, int], things: int) -> Map:
    """The panoptic map (H, W) of a picture from those of its tiles; see `Seams`.

    Args:
        pieces: the tiles in the order of rows, then columns; `result` is the panoptic map (h, w).
        size: H, W.
        things: number of thing classes.
    """
    seams = Seams(np.full(size, UNSEEN, np.int32), things)
    for piece in pieces:
        seams.add(piece)
    return seams.renumbered()


@dataclass
class Seams:
    """A panoptic map that grows tile by tile.

    Each pixel belongs to the tile whose middle is nearest. A tile reaches over its own part into those of its
    neighbours; where they are there already, things of one class that mostly lie over one another are one.

    Args:
        whole: (H, W), label + 1000 · instance.
        things: number of thing classes.
    """

    whole: Map
    things: int
    instances: int = 0
    same: dict[int, int] = field(default_factory=dict)  # from a value to an older one of the same thing

    def add(self, piece: Piece) -> None:
        """Adds the panoptic map of a tile."""
        found = self._numbered(piece.result)
        self._link(found, self.whole[piece.place])
        self.whole[piece.own] = found[piece.own_inside]

    def _numbered(self, panoptic: NDArray[np.integer]) -> Map:
        """The map with instance numbers that no tile had before."""
        is_thing = panoptic % INSTANCE_OFFSET < self.things
        numbered = np.where(is_thing, panoptic + self.instances * INSTANCE_OFFSET, panoptic)
        self.instances += int(panoptic.max()) // INSTANCE_OFFSET
        return numbered.astype(np.int32)

    def _link(self, found: Map, before: Map) -> None:
        """Notes which things of a tile (h, w) are those of earlier tiles in the same place."""
        seen = before != UNSEEN
        new, old = found[seen], before[seen]
        both = (new % INSTANCE_OFFSET == old % INSTANCE_OFFSET) & (new % INSTANCE_OFFSET < self.things)
        areas = dict(zip(*np.unique(new, return_counts=True), strict=True))
        areas |= dict(zip(*np.unique(old, return_counts=True), strict=True))
        pairs, shared = np.unique(np.stack([new[both], old[both]]), axis=1, return_counts=True)
        for place in shared.argsort(kind="stable")[::-1]:
            one, other = pairs[:, place].tolist()
            if one not in self.same and shared[place] > SAME * min(areas[one], areas[other]):
                self.same[one] = other

    def renumbered(self) -> Map:
        """The map, things counted from 1 through all of them."""
        values, places = np.unique(self.whole, return_inverse=True)
        numbers: dict[int, int] = {}
        final = np.empty_like(values)
        for place, value in enumerate(values.tolist()):
            label = value % INSTANCE_OFFSET
            final[place] = label
            if label < self.things:
                root = self._root(value)
                final[place] += INSTANCE_OFFSET * numbers.setdefault(root, len(numbers) + 1)
        return final[places].reshape(self.whole.shape)

    def _root(self, value: int) -> int:
        while value in self.same:
            value = self.same[value]
        return value
