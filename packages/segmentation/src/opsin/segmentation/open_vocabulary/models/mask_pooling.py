"""Means of a map under masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = 1e-8  # keeps the mean under an empty mask finite


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) to `size` by bilinear interpolation with aligned borders, if it is not that size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def mask_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of a map over each mask; no gradient goes into the masks.

    Args:
        features: (B, C, H, W).
        masks: (B, Q, h, w) logits, resized to the map; a pixel belongs to a mask above 0.

    Returns:
        (B, Q, C); 0 for an empty mask.
    """
    inside = (resize(masks.detach(), features.shape[-2:]) > 0).to(features.dtype)
    total = torch.einsum("bchw,bqhw->bqc", features, inside)
    # counted in float32: bfloat16 can't tell 257 pixels from 256
    return total / (inside.sum((-1, -2), dtype=torch.float32)[..., None] + EMPTY)
