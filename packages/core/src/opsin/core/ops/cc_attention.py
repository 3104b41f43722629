"""Criss-cross attention: each cell attends to the cells of its own column and row.

CCNet, arXiv:1811.11721. Queries and keys are (B, D, H, W), values (B, C, H, W), the result (B, C, H, W). The
cell itself lies on both its column and its row and is counted once (in the row). Composed of differentiable
calls, so it is its own reference.
"""

from __future__ import annotations

import torch
from torch import Tensor


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention over the H + W - 1 cells of each cell's column and row, without scaling.

    Args:
        query: (B, D, H, W).
        key: (B, D, H, W).
        value: (B, C, H, W).

    Returns:
        (B, C, H, W).
    """
    height = query.shape[2]
    along_column = torch.einsum("bchw,bciw->bhwi", query, key)
    itself = torch.eye(height, dtype=torch.bool, device=query.device)[:, None, :]
    along_column = along_column.masked_fill(itself, -torch.inf)
    along_row = torch.einsum("bchw,bchj->bhwj", query, key)
    attention = torch.cat([along_column, along_row], -1).softmax(-1)
    columns = torch.einsum("bciw,bhwi->bchw", value, attention[..., :height])
    return columns + torch.einsum("bchj,bhwj->bchw", value, attention[..., height:])
