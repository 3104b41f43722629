"""Relative position bias inside a window (Swin Transformer, arXiv 2103.14030)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def relative_position_index(window: tuple[int, int]) -> Tensor:
    """(N, N) rows of the table of a window (h, w), N = h * w, for each query (first axis) and key.

    The table has (2h - 1) * (2w - 1) rows; the offset query minus key (dy, dx) is in row
    (dy + h - 1) * (2w - 1) + dx + w - 1.
    """
    height, width = window
    rows, columns = torch.arange(height, device="cpu"), torch.arange(width, device="cpu")
    y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + height - 1) * (2 * width - 1) + dx + width - 1


def resize_bias_table(
    table: Tensor, window: tuple[int, int], new_window: tuple[int, int], *, mode: str = "bicubic"
) -> Tensor:
    """A table ((2h - 1) * (2w - 1), heads) of a window (h, w) for another window (align_corners is False)."""
    if window == new_window:
        return table
    shape, new_shape = ((2 * height - 1, 2 * width - 1) for height, width in (window, new_window))
    square = table.t().unflatten(1, shape)[None]
    return F.interpolate(square, size=new_shape, mode=mode, align_corners=False)[0].flatten(1).t()
