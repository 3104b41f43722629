"""Multi-axis attention: inside windows of neighbours, then over a dilated grid that spans the map.

Maps are (B, H, W, C). Grid attention is window attention of the map whose sides (G, H / G) are taken as
(H / G, G): tokens that attend to each other lie H / G rows and W / G columns apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.maxvit.tanh_gelu import TanhGELU
from opsin.core.errors import UserError, unknown
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.relative_bias import relative_position_index
from opsin.core.layers.windows import pad_to_multiple, partition, reverse
from opsin.registry import MODELS

Pair = tuple[int, int]
Axis = Literal["block", "grid"]


class RelativeBias(nn.Module):
    """A bias for each offset of key minus query; `relative_position_bias_table` is (heads, 2h-1, 2w-1).

    Args:
        num_heads: heads.
        window: rows and columns (h, w) of tokens, N = h * w.
    """

    index: Tensor

    def __init__(self, num_heads: int, window: Pair) -> None:
        super().__init__()
        self.tokens = window[0] * window[1]
        self.relative_position_bias_table = nn.Parameter(
            torch.empty(num_heads, 2 * window[0] - 1, 2 * window[1] - 1)
        )
        nn.init.normal_(self.relative_position_bias_table, std=0.02)
        # the table is that of key minus query, the index is written for query minus key
        index = relative_position_index(window).t().flatten()
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        """The biases (heads, N, N) of every query (second axis) and key."""
        rows = self.relative_position_bias_table.flatten(1)
        return rows.index_select(1, self.index).unflatten(1, (self.tokens, self.tokens))


class RelativeAttention(Attention):
    """Multi-head attention with a relative position bias `rel_pos`; parameters `qkv` and `proj`.

    Args:
        dim: width C.
        head_dim: width of a head; divides C.
        window: rows and columns of the tokens that attend to each other.
    """

    def __init__(self, dim: int, head_dim: int, window: Pair) -> None:
        super().__init__(dim, dim // head_dim)
        self.rel_pos = RelativeBias(dim // head_dim, window)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B * groups, N, C) to the same shape; `bias` (groups, 1, 1, N) is added to the logits of keys."""
        total = self.rel_pos()[None]
        if bias is not None:
            total = total + bias
            total = total.expand(len(x) // len(bias), *total.shape).flatten(0, 1)
        return super().forward(x, total)


def grid_partition(x: Tensor, grid: Pair) -> Tensor:
    """(B, H, W, C) to (B * groups, rows * columns, C): each group is a dilated grid over the whole map."""
    batch, height, width, channels = x.shape
    x = x.view(batch, grid[0], height // grid[0], grid[1], width // grid[1], channels)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, grid[0] * grid[1], channels)


def grid_reverse(groups: Tensor, grid: Pair, size: Pair) -> Tensor:
    """The way back from `grid_partition`: to (B, H, W, C) of `size` (H, W)."""
    rows, columns = size[0] // grid[0], size[1] // grid[1]
    x = groups.view(-1, rows, columns, grid[0], grid[1], groups.shape[-1])
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, size[0], size[1], groups.shape[-1])


PARTITIONS: dict[Axis, tuple[Callable[[Tensor, Pair], Tensor], Callable[[Tensor, Pair, Pair], Tensor]]] = {
    "block": (partition, reverse),
    "grid": (grid_partition, grid_reverse),
}


@MODELS.register_module()
class MultiAxisAttention(nn.Module):
    """Attention inside the groups of a partition of the map, then a perceptron; both residual.

    Args:
        dim: channels C.
        axis: 'block' for windows of neighbours, 'grid' for a dilated grid over the whole map.
        window: rows and columns of a window, or of the grid.
        head_dim: width of a head; divides C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        mlp_ratio: width of the perceptron in units of C.

    Raises:
        UserError: for an unknown `axis`, or if `head_dim` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        axis: Axis,
        window: int | Sequence[int] = 7,
        *,
        head_dim: int = 32,
        drop_path_rate: float = 0.0,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if axis not in PARTITIONS:
            raise unknown("axis of MultiAxisAttention", axis, PARTITIONS)
        if dim % head_dim:
            raise UserError(f"head_dim {head_dim} of MaxViT does not divide a width of {dim}")
        self.axis, self.window = axis, pair(window)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = RelativeAttention(dim, head_dim, self.window)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=TanhGELU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        cut, join = PARTITIONS[self.axis]
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window)
        size = (x.shape[1], x.shape[2])
        mask = None
        if size != (height, width):
            inside = x.new_zeros(1, height, width, 1)
            outside = F.pad(inside, (0, 0, 0, size[1] - width, 0, size[0] - height), value=float("-inf"))
            mask = cut(outside, self.window)[:, None, None, :, 0]
        return join(self.attn(cut(x, self.window), mask), self.window, size)[:, :height, :width]


def pair(side: int | Sequence[int]) -> Pair:
    """Rows and columns of a window given by a side or by both.

    Raises:
        UserError: unless they are one or two positive numbers.
    """
    sides = (side, side) if isinstance(side, int) else tuple(side)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"window or grid {side} of MaxViT must be a side of at least 1, or two")
    return sides
