"""Prediction in pictures larger than those of the training: overlapping tiles, one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from opsin.core.engine.predictor import Image, Predictor
from opsin.core.errors import UserError

Tile = tuple[slice, slice]
"""Rows and columns of a picture."""


def tile_corners(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis: as few as cover it, evenly laid, each overlapping the next.

    Args:
        length: pixels to cover.
        tile: pixels of a tile.
        overlap: pixels that neighbours share at least.

    Raises:
        UserError: unless 0 <= overlap < tile.
    """
    if not 0 <= overlap < tile:
        raise UserError(f"tiles of {tile} pixels with an overlap of {overlap}", "give 0 <= overlap < size")
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tiles(size: Sequence[int], tile: int, overlap: int) -> Iterator[Tile]:
    """Rows and columns of every tile of a picture of `size` (H, W)."""
    for top in tile_corners(size[0], tile, overlap):
        for left in tile_corners(size[1], tile, overlap):
            yield slice(top, min(top + tile, size[0])), slice(left, min(left + tile, size[1]))


def own_parts(size: Sequence[int], tile: int, overlap: int) -> Iterator[Tile]:
    """For every tile the part that it is nearest to; together they cover the picture, each pixel once."""
    rows, columns = (_parts(length, tile, overlap) for length in size)
    for row in rows:
        for column in columns:
            yield row, column


def _parts(length: int, tile: int, overlap: int) -> list[slice]:
    """The borders run through the middle of what neighbouring tiles share."""
    corners = tile_corners(length, tile, overlap)
    borders = [0, *((first + tile + second) // 2 for first, second in pairwise(corners)), length]
    return [slice(start, stop) for start, stop in pairwise(borders)]


@dataclass(frozen=True)
class Piece:
    """What was found in a tile.

    Args:
        place: the tile.
        own: the part of the picture that it is nearest to.
        result: of the tile alone.
    """

    place: Tile
    own: Tile
    result: Any

    @property
    def own_inside(self) -> Tile:
        """`own` counted from the tile's corner."""
        rows, columns = (
            slice(own.start - place.start, own.stop - place.start)
            for own, place in zip(self.own, self.place, strict=True)
        )
        return rows, columns


class TiledPredictor(Predictor):
    """Predicts on large pictures tile by tile.

    A config's `tiles=dict(size=…, overlap=…)`, pixels, cuts pictures that are larger than a tile; without a
    size, pictures are taken whole. A subclass says how the results of tiles become the picture's.
    """

    def joined(self, pieces: Iterable[Piece], size: tuple[int, int]) -> Any:
        """The result for a picture of `size` (H, W), from its tiles in the order of rows, then columns."""
        raise NotImplementedError(f"{type(self).__name__} does not say how tiles become a picture")

    def infer(self, image: Image, path: Path) -> Any:
        """The model's result for one RGB image, or the joined results of its tiles."""
        cut = self.cfg.get("tiles") or {}
        tile = cut.get("size")
        if tile is None or max(image.shape[:2]) <= tile:
            return super().infer(image, path)
        return self.joined(self._pieces(image, path, tile, cut.get("overlap", 0)), image.shape[:2])

    def _pieces(self, image: Image, path: Path, tile: int, overlap: int) -> Iterator[Piece]:
        places = list(tiles(image.shape[:2], tile, overlap))
        parts = own_parts(image.shape[:2], tile, overlap)
        for done, (place, own) in enumerate(zip(places, parts, strict=True), start=1):
            yield Piece(place, own, super().infer(image[place], path))
            self._show_parts(done, len(places))
