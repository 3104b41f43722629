"""The eight orders in which MHS-VM scans a map of h x w cells; a cell is row * w + column.

Four patterns have two base orders each, and each base order is also walked backwards:

    C  boustrophedon: row by row, every other row from right to left; the same by columns
    X  anti-diagonals, walked up and down in turns; the same in the mirror of left and right
    S  clockwise spiral from the upper left corner inwards; the same in the mirror of top and bottom
    Z  raster: row by row, each from left to right; column by column

What a naive reading gets wrong: the first diagonal that is longer than a cell is walked upwards to the right
first, (0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), …: those with an even row + column are the flipped
ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Order = NDArray[np.int64]

PATTERNS = ("C", "X", "S", "Z")


def boustrophedon(cells: Order) -> Order:
    """Cells (h, w) row by row, every other row backwards: (h * w,)."""
    rows = cells.copy()
    rows[1::2] = rows[1::2, ::-1]
    return rows.reshape(-1)


def diagonal(cells: Order) -> Order:
    """Cells (h, w) by anti-diagonals, those of an even row + column with descending rows: (h * w,)."""
    mirrored = cells[:, ::-1]  # whose diagonals are the anti-diagonals, with ascending rows
    height, width = cells.shape
    lines = [mirrored.diagonal(width - 1 - k) for k in range(height + width - 1)]
    return np.concatenate([line[::-1] if k % 2 == 0 else line for k, line in enumerate(lines)])


def spiral(cells: Order) -> Order:
    """Cells (h, w) from the upper left corner clockwise inwards: (h * w,)."""
    sides = []
    while cells.size:
        sides.append(cells[0])
        cells = np.rot90(cells[1:])  # the right side becomes the top one
    return np.concatenate(sides)


def base_orders(height: int, width: int) -> Order:
    """The eight base orders (8, height * width): two each of C, X, S and Z."""
    cells = np.arange(height * width, dtype=np.int64).reshape(height, width)
    return np.stack(
        [
            boustrophedon(cells),
            boustrophedon(cells.T),
            diagonal(cells),
            diagonal(cells[:, ::-1]),
            spiral(cells),
            spiral(cells[::-1]),
            cells.reshape(-1),
            cells.T.reshape(-1),
        ]
    )


def inverse(orders: Order) -> Order:
    """For each order (…, L) the step at which a cell is visited: the inverse permutations."""
    return np.argsort(orders, axis=-1)


@lru_cache(maxsize=64)
def _routes(height: int, width: int, heads: int) -> tuple[Order, Order]:
    base = base_orders(height, width)[: 2 * heads].reshape(heads, 2, -1)
    routes = np.stack((base, base[..., ::-1]), axis=2).reshape(heads, 4, -1)
    return routes, inverse(routes)


@lru_cache(maxsize=64)
def _placed_routes(height: int, width: int, heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
    routes, back = _routes(height, width, heads)
    with torch.inference_mode(False):  # training may ask for what prediction has cached
        return torch.tensor(routes, device=device), torch.tensor(back, device=device)


def scan_routes(height: int, width: int, heads: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The four routes of each head and their inverses, both (heads, 4, height * width).

    The routes of a head are its first base order, that backwards, its second base order, that backwards.

    Args:
        height: rows of the map.
        width: columns of the map.
        heads: how many of the patterns C, X, S, Z are used, from the first.
        device: where the indices are wanted; they are kept for the next call.
    """
    if torch.compiler.is_compiling():  # a traced tensor must not stay in the cache
        return _placed_routes.__wrapped__(height, width, heads, device)
    return _placed_routes(height, width, heads, device)
