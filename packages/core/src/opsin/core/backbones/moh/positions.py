"""Where queries and keys of a map lie relative to each other, for biases that a small network computes.

Offsets are those of TransNeXt (arXiv 2311.17132): a query's place minus a key's, rows first, scaled so that
8 is the side of the map in pretraining, then on a logarithmic scale. A pooled key lies at the mean of the
places that its bin covers. Only the distinct offsets go through the network; an index brings their biases to
all pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Positions:
    """A map of queries, the map of its keys, and how they lie to each other.

    Args:
        size: rows and columns of the map, N queries.
        pool: rows and columns that keys are pooled to, M; `size` if they are not.
        offsets: the distinct scaled offsets (U, 2).
        index: for every key and query (M, N) the row of `offsets`.
        near: which places of the window around every query are on the map (w², N), row by row; with none,
            there are only the M keys.
        log_keys: logarithm of the number of all keys of every query, (N,).
    """

    size: Size
    pool: Size
    offsets: Tensor
    index: Tensor
    near: Tensor
    log_keys: Tensor

    @classmethod
    def of(
        cls, size: Size, pool: Size, pretrain_side: int, *, window: int = 0, device: torch.device
    ) -> Positions:
        """Those of a map.

        Args:
            size: rows and columns of the map.
            pool: rows and columns that its keys are pooled to.
            pretrain_side: rows and columns that it had in pretraining.
            window: side of the window around every query, odd; 0 for none.
            device: where the tensors shall be.
        """
        scaled, places = [], []
        for queries, keys in zip(size, pool, strict=True):
            apart, place = _axis(queries, keys)
            axis = torch.tensor(apart, dtype=torch.float32, device=device) / (pretrain_side - 1) * 8
            scaled.append(axis.sign() * torch.log2(axis.abs() + 1) / 3)  # log2(8)
            places.append(torch.tensor(place, device=device))
        (rows, columns), (row, column) = scaled, places
        shape = (len(rows), len(columns))
        offsets = torch.stack((rows[:, None].expand(shape), columns.expand(shape)), -1).flatten(0, 1)
        index = row[:, None, :, None] * len(columns) + column[None, :, None, :]
        near = _window(size, window, device)
        log_keys = torch.log((near.sum(0) + math.prod(pool)).float())
        return cls(size, pool, offsets, index.flatten(0, 1).flatten(1), near, log_keys)


@lru_cache(maxsize=256)
def _axis(queries: int, keys: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Along one axis: the distinct offsets, ascending, and for every key and query which of them it is."""
    bins = np.arange(keys)
    first, last = bins * queries // keys, -(-(bins + 1) * queries // keys) - 1
    twice = 2 * np.arange(queries) - (first + last)[:, None]  # whole numbers, so that equal ones are equal
    offsets, place = np.unique(twice, return_inverse=True)
    return offsets / 2, place.reshape(keys, queries)


def _window(size: Size, window: int, device: torch.device) -> Tensor:
    """Which places of the window around every pixel are on the map: (window², N), row by row."""
    reach = torch.arange(window, device=device) - window // 2
    on_map = []
    for length in size:
        place = torch.arange(length, device=device) + reach[:, None]
        on_map.append((place >= 0) & (place < length))
    rows, columns = on_map
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)
