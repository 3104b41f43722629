"""Bilinear sampling at fractional places of a map: the piece that the region and deformable ops share.

Places are in cells: (0, 0) is the centre of the first cell. Two borders exist in the field. With
`border=True` (RoIAlign, deformable RoI pooling) a place less than one cell outside takes the border's value
and beyond that 0; with `border=False` (deformable convolution) cells outside the map are 0. In both, a place
at -1 or less, or beyond the far edge by a cell, gives 0 and no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_corners(places: Tensor, length: int, *, border: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two cells next to each place along one axis, the share of the second, and whether the place counts.

    Args:
        places: any shape, in cells.
        length: cells along this axis.
        border: see the module.

    Returns:
        Indices of both cells (clamped into the map), the weight of the second (the first has 1 minus that),
        and a mask of the places that count.
    """
    inside = (places >= -1) & (places <= length) if border else (places > -1) & (places < length)
    safe = torch.where(inside, places, torch.zeros_like(places))
    if border:
        safe = safe.clamp(0, length - 1)
    low = safe.floor()
    rest = safe - low
    low = low.long()
    return low.clamp(0, length - 1), (low + 1).clamp(0, length - 1), rest, inside


def bilinear_sample(maps: Tensor, y: Tensor, x: Tensor, *, border: bool) -> Tensor:
    """Samples every channel of `maps` at the places (y, x); differentiable in all three.

    Args:
        maps: (C, H, W).
        y: rows, any shape that broadcasts with `x`.
        x: columns.
        border: see the module.

    Returns:
        (C, *shape of the broadcast places).
    """
    y, x = torch.broadcast_tensors(y, x)
    height, width = maps.shape[-2:]
    low_y, high_y, rest_y, inside_y = axis_corners(y, height, border=border)
    low_x, high_x, rest_x, inside_x = axis_corners(x, width, border=border)
    total = None
    for at_y, step_y, weight_y in ((low_y, 0, 1 - rest_y), (high_y, 1, rest_y)):
        for at_x, step_x, weight_x in ((low_x, 0, 1 - rest_x), (high_x, 1, rest_x)):
            weight = weight_y * weight_x * (inside_y & inside_x)
            if not border:
                weight = weight * _within(y, step_y, height) * _within(x, step_x, width)
            part = maps[:, at_y, at_x] * weight
            total = part if total is None else total + part
    assert total is not None
    return total


def _within(places: Tensor, step: int, length: int) -> Tensor:
    """Whether the cell `step` after the place's own lies on the map."""
    cell = places.detach().floor() + step
    return (cell >= 0) & (cell <= length - 1)
