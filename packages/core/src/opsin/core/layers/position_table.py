"""Learned position tables and bias tables, fitted to other grids."""

import math

import torch.nn.functional as F
from torch import Tensor, cat

from opsin.core.errors import UserError

Grid = tuple[int, int]


def resize_position_table(
    table: Tensor, grid: Grid, new_grid: Grid, *, before: int = 0, after: int = 0, mode: str = "bicubic"
) -> Tensor:
    """A table (1, before + h * w + after, d) of a grid (h, w) for another; the outer rows are kept.

    Args:
        table: rows of class tokens, then of the patches row by row, then of further tokens.
        grid: rows and columns of the grid that the table is for.
        new_grid: those it shall be for.
        before: rows that stand before those of the patches.
        after: rows that stand after them.
        mode: how `torch.nn.functional.interpolate` resizes (align_corners is False).
    """
    if grid == new_grid:
        return table
    head, patches, tail = table.split((before, math.prod(grid), after), dim=1)
    patches = patches.transpose(1, 2).unflatten(2, grid)
    patches = F.interpolate(patches, size=new_grid, mode=mode, align_corners=False)
    return cat((head, patches.flatten(2).transpose(1, 2), tail), dim=1)


def square_grid(patches: int) -> Grid:
    """The grid of a published table, which does not tell its own: a square one.

    Raises:
        UserError: if `patches` is no square number.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(f"a position table of {patches} patches is not square", "its grid cannot be told")
    return side, side
