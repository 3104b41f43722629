"""Which points lie in which quadrilaterals, by the parity of the edges to their right.

Points are (N, 2), quadrilaterals (M, 8) as four corners in order, the result (N, M) floats, 1 inside and 0
outside. A point exactly on an edge may count as either. No gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def points_in_polygons(points: Tensor, polygons: Tensor) -> Tensor:
    """1 where a point lies in a quadrilateral.

    Args:
        points: (N, 2) x, y.
        polygons: (M, 8) x1, y1 … x4, y4.

    Returns:
        (N, M) of the points' dtype.
    """
    corners = polygons.view(-1, 4, 2)
    x, y = points[:, None, None, 0], points[:, None, None, 1]
    ahead = corners.roll(1, 1)
    spans = (corners[..., 1] < y) != (ahead[..., 1] < y)
    rise = torch.where(spans, ahead[..., 1] - corners[..., 1], 1)
    crossing = corners[..., 0] + (y - corners[..., 1]) * (ahead[..., 0] - corners[..., 0]) / rise
    return ((spans & (crossing > x)).sum(-1) % 2).to(points.dtype)
