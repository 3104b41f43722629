"""Halving a map by joining neighbours (Swin Transformer, arXiv 2103.14030)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.layers.windows import pad_to_multiple


class SwinMerging(nn.Module):
    """Four neighbours side by side, LayerNorm (`norm`), linear without bias (`reduction`).

    The neighbours stand in the order (0, 0), (1, 0), (0, 1), (1, 1) of row and column. Odd sides are padded
    with a row or column of zeros.

    Args:
        dim: channels in, C.
        out_dim: channels out; 2 * C if None.
    """

    def __init__(self, dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim or 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        x = pad_to_multiple(x, (2, 2))
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, -1)))
