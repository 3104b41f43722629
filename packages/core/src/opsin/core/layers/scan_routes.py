"""The orders in which a map's cells become a sequence for a scan (VMamba's cross-scan, arXiv 2401.10166)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ordered(cells: Tensor, routes: Sequence[int]) -> Tensor:
    """The cells of a map (B, H, W, C) as one sequence (B, len(routes) HW, C), route after route.

    A route is 1 along the rows, 2 against it, 3 along the columns, 4 against it.
    """
    parts = []
    for route in routes:
        part = (cells if route < 3 else cells.transpose(1, 2)).flatten(1, 2)
        parts.append(part if route % 2 else part.flip(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def restored(sequence: Tensor, routes: Sequence[int], like: Tensor) -> Tensor:
    """The way back from `ordered`: the sum of the routes as a map (B, H, W, C), of the sizes of `like`."""
    sizes = like.shape[1:3]
    total = None
    for route, part in zip(routes, sequence.chunk(len(routes), 1), strict=True):
        part = part if route % 2 else part.flip(1)
        part = part.unflatten(1, sizes) if route < 3 else part.unflatten(1, sizes[::-1]).transpose(1, 2)
        total = part if total is None else total + part
    assert total is not None
    return total
