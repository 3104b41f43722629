"""Where Vim's class tokens stand in the sequence, and its position table for other grids.

A sequence is the patches row by row with the class tokens put in at `places`; the position table has a row
for each of its tokens. (The authors' own resizing takes the first row for the class token's although it
stands in the middle.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, cat

ClassToken = Literal["middle", "first", "random", "both", "none"]
CLASS_TOKENS: tuple[ClassToken, ...] = ("middle", "first", "random", "both", "none")


def places(class_token: ClassToken, patches: int) -> tuple[int, ...]:
    """Indices of the class tokens in a sequence of `patches` patches; 'random' is 'first' in the table."""
    by_kind = {"middle": (patches // 2,), "both": (0, patches + 1), "none": ()}
    return by_kind.get(class_token, (0,))


def put_in(patches: Tensor, extras: Sequence[Tensor], at: Sequence[int]) -> Tensor:
    """Patches (B, M, d) with `extras` (B, 1, d) put in, each at its index of `at` in the result."""
    for extra, place in zip(extras, at, strict=True):
        patches = cat((patches[:, :place], extra, patches[:, place:]), 1)
    return patches


def take_out(sequence: Tensor, at: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The way back from `put_in`: patches (B, M, d) and the tokens (B, 1, d) at `at`."""
    stay = [i for i in range(sequence.shape[1]) if i not in at]
    return sequence[:, stay], [sequence[:, place : place + 1] for place in at]


def resize_table(
    table: Tensor, class_token: ClassToken, grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """A position table (1, tokens, d) of a grid (rows, columns) for another, bicubic; class rows are kept."""
    if grid == new_grid:
        return table
    patches, extras = take_out(table, places(class_token, math.prod(grid)))
    square = patches.unflatten(1, grid).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=new_grid, mode="bicubic", align_corners=False)
    return put_in(resized.flatten(2).transpose(1, 2), extras, places(class_token, math.prod(new_grid)))
