"""Fixed sine and cosine positions of a grid, as MAE (arXiv 2111.06377) has them."""

from __future__ import annotations

import torch
from torch import Tensor


def sine_table(dim: int, grid: tuple[int, int]) -> Tensor:
    """A table (1, h * w, dim): first half of the channels the column, second half the row.

    Each half is the sines, then the cosines, of position / 10000 ** (i / (dim / 4)).

    Args:
        dim: channels, a multiple of 4.
        grid: rows and columns; positions count from 0.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid)
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))

    def waves(positions: Tensor) -> Tensor:
        angles = positions[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    by_column = waves(columns).expand(grid[0], -1, -1)
    by_row = waves(rows)[:, None].expand(-1, grid[1], -1)
    return torch.cat((by_column, by_row), dim=2).flatten(0, 1)[None].float()
