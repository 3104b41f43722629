"""The cells around a place, in Triton: what `opsin.core.ops.bilinear` is in PyTorch. Places are in cells."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def on_map(y, x, height, width):
    """Whether a place has a cell of the map next to it; False for NaN."""
    return (y > -1) & (x > -1) & (y < height) & (x < width)


@triton.jit
def corner(y, x, height, width, CORNER: tl.constexpr):
    """One of the four cells around finite places: row, column, whether on the map, shares along y and x.

    Cells 2 and 3 lie after the place along y, 1 and 3 along x: there the shares grow with the place.
    """
    low_y, low_x = tl.floor(y), tl.floor(x)
    share_y, share_x = y - low_y, x - low_x
    if CORNER < 2:
        share_y = 1 - share_y
    if CORNER % 2 == 0:
        share_x = 1 - share_x
    row, column = low_y.to(tl.int32) + CORNER // 2, low_x.to(tl.int32) + CORNER % 2
    inside = (row >= 0) & (column >= 0) & (row < height) & (column < width)
    return row, column, inside, share_y, share_x


@triton.jit
def bordered(place, length):
    """Along one axis, the border reaching one cell further: both cells, the second's share, if any counts."""
    inside = (place >= -1) & (place <= length)
    safe = tl.minimum(tl.maximum(tl.where(inside, place, 0.0), 0.0), length - 1.0)
    low = tl.floor(safe)
    first = low.to(tl.int32)
    return first, tl.minimum(first + 1, length - 1), safe - low, inside
