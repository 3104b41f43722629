"""Cutting maps into blocks with a halo around each, as local attention reads keys. Maps are (N, H, W, C)."""

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def overlapping(x: Tensor, dim: int, step: int, size: int) -> Tensor:
    """Cuts axis `dim` into overlapping pieces of `size`, one each `step`: (…, S, …) to (…, pieces, size, …).

    A piece is joined from views of `step` cells, so the gradient is a few additions of slices; that of
    `Tensor.unfold` takes much longer on a CPU.

    Args:
        x: the tensor; S is (pieces - 1) * step + ceil(size / step) * step, of which the last may be unused.
        dim: the axis, not negative.
        step: cells between the beginnings of two pieces.
        size: cells of a piece.
    """
    parts = -(-size // step)
    pieces = x.shape[dim] // step - (parts - 1)
    shifted = [
        x.narrow(dim, part * step, pieces * step)
        .unflatten(dim, (pieces, step))
        .narrow(dim + 1, 0, min(step, size - part * step))
        for part in range(parts)
    ]
    return torch.cat(shifted, dim + 1)


def neighbourhoods(x: Tensor, block: Size, halo: Size) -> Tensor:
    """Every block with its halo; beyond the map are zeros.

    Args:
        x: map (N, H, W, C) whose sides are multiples of the block's.
        block: rows and columns of a block.
        halo: rows above and below it, columns left and right of it.

    Returns:
        (N, H / block rows, W / block columns, rows + 2 * halo rows, columns + 2 * halo columns, C).
    """
    height, width = (b + 2 * h for b, h in zip(block, halo, strict=True))
    below, right = (-(-(b + 2 * h) // b) * b - b - h for b, h in zip(block, halo, strict=True))
    x = F.pad(x, (0, 0, halo[1], right, halo[0], below))
    return overlapping(overlapping(x, 1, block[0], height), 3, block[1], width).transpose(2, 3)
