"""Maps of large pictures from those of overlapping tiles.

In memory are one tile's result and the map of the whole picture, whatever the number of tiles.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from opsin.core.engine.tiled import Piece

Size = tuple[int, int]


def stitched(pieces: Iterable[Piece], size: Size) -> NDArray[np.uint8]:
    """Label maps (h, w) of tiles to one (H, W): each pixel has the label of the tile whose middle is nearest.

    Args:
        pieces: the tiles; `result` is the label map.
        size: H, W.
    """
    whole = np.zeros(size, np.uint8)
    for piece in pieces:
        whole[piece.own] = piece.result[piece.own_inside]
    return whole


def blended(pieces: Iterable[Piece], size: Size, channels: int) -> NDArray[np.float32]:
    """Values (C, h, w) of tiles to those of the picture (C, H, W): means, a tile counting less to its border.

    Args:
        pieces: the tiles; `result` is the values.
        size: H, W.
        channels: C.
    """
    total = np.zeros((channels, *size), np.float32)
    weights = np.zeros(size, np.float32)
    for piece in pieces:
        height, width = piece.result.shape[1:]
        weight = np.multiply.outer(_ramp(height), _ramp(width)).astype(np.float32)
        total[:, *piece.place] += weight * piece.result
        weights[piece.place] += weight
    total /= weights
    return total


def _ramp(length: int) -> NDArray[np.int64]:
    """1, 2, … to the middle, and down to 1."""
    steps = np.arange(1, length + 1)
    return np.minimum(steps, steps[::-1])
