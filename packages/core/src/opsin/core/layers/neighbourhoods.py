"""Cutting maps into blocks with a halo around each, as local attention reads keys. Maps are (N, H, W, C)."""

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def neighbourhoods(x: Tensor, block: Size, halo: Size) -> Tensor:
    """Every block with its halo; beyond the map are zeros.

    Two concatenations of views, first along rows, then along columns: the gradient is a few additions of
    slices, where that of `Tensor.unfold` takes much longer on a CPU.

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
    rows = torch.cat(_parts(x, 1, block[0], height), 2)
    return torch.cat([part.transpose(2, 3) for part in _parts(rows, 3, block[1], width)], 4)


def _parts(x: Tensor, dim: int, step: int, size: int) -> list[Tensor]:
    """Pieces of `size` cells of axis `dim`, one each `step`, in parts that are joined at `dim` + 1.

    A part is (…, pieces, up to `step` cells, …). The axis has (pieces - 1) * step + ceil(size / step) * step
    cells, of which the last may be unused.
    """
    parts = -(-size // step)
    pieces = x.shape[dim] // step - (parts - 1)
    return [
        x.narrow(dim, part * step, pieces * step)
        .unflatten(dim, (pieces, step))
        .narrow(dim + 1, 0, min(step, size - part * step))
        for part in range(parts)
    ]
