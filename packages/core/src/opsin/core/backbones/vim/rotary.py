"""Two-dimensional rotary embedding of Vim's tokens (after EVA-02, arXiv 2303.11331).

Rows rotate the first half of the channels and columns the second, in interleaved pairs. Positions are
stretched to the grid side of the pretraining (14), so any grid goes through; frequencies are computed, never
stored.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(
    grid: tuple[int, int], dim: int, side: int, class_tokens: int, device: torch.device
) -> Tensor:
    """Cosines and sines (2, L, dim) for the tokens of a grid (rows, columns), row by row.

    A class token is not rotated; it is taken to come first, as the authors' code does even where it stands in
    the middle, and a second one to come last.
    """
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    rows, columns = (
        (torch.arange(n, device=device) / n * side)[:, None] * frequencies.repeat_interleave(2) for n in grid
    )
    shape = (*grid, rows.shape[1])
    angles = torch.cat((rows[:, None].expand(shape), columns[None].expand(shape)), -1).flatten(0, 1)
    still = angles.new_zeros(1, angles.shape[1])
    angles = torch.cat([still] * (class_tokens > 0) + [angles] + [still] * (class_tokens > 1))
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, tables: Tensor) -> Tensor:
    """Turns channel pairs (a, b) of x (B, L, dim) by the angles of `rotary_tables`."""
    cos, sin = tables
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * cos + turned * sin
