"""Precise RoI pooling: the exact mean of the bilinear surface over each bin of a box.

"Acquisition of Localization Confidence for Accurate Object Detection", arXiv 1807.11590. Cell (i, j) lies at
x = j, y = i, with no shift of half a cell; cells outside are 0, so the surface fades out over one cell around
the map. It is a sum of products of hat functions, so its integral over a rectangle is too: two small matrix
products a box, differentiable in the features and in the box.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prroi_pool(features: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """Pools one box of each map.

    Args:
        features: (B, C, H, W).
        boxes: (B, 4) x1, y1, x2, y2 in cells.
        bins: bins along each side.

    Returns:
        (B, C, bins, bins); 0 for a box without area. Computed in float32.
    """
    features, boxes = features.float(), boxes.float()
    height, width = features.shape[2:]
    across, widths = _shares(boxes[:, 0], boxes[:, 2], bins, width)
    down, heights = _shares(boxes[:, 1], boxes[:, 3], bins, height)
    integral = torch.einsum("bph,bchw,bqw->bcpq", down, features, across)
    area = (widths * heights)[:, None, None, None]
    some = area > 0
    return torch.where(some, integral / torch.where(some, area, 1.0), 0.0)


def _shares(start: Tensor, end: Tensor, bins: int, cells: int) -> tuple[Tensor, Tensor]:
    """How much of each cell's hat each bin holds along one axis (B, bins, cells), and bins' length (B,)."""
    length = (end - start).clamp(min=0) / bins
    edges = start[:, None] + length[:, None] * torch.arange(bins + 1, device=start.device)
    below = _hat_integral(edges[..., None] - torch.arange(cells, device=start.device))
    return below[:, 1:] - below[:, :-1], length


def _hat_integral(t: Tensor) -> Tensor:
    """The integral of max(0, 1 - |s|) over s from minus infinity to t."""
    t = t.clamp(-1, 1)
    return torch.where(t < 0, (t + 1) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
