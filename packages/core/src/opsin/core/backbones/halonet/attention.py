"""Blocked local self-attention with halo.

All products of query and row, and of query and column, come from one product with each table and are read
off along the diagonals without a copy; their sum is written once, as the mask of a fused attention.

Letters: B blocks of all images, n heads, y x query in its block, u v key in its window, w keys on a side of
it, d width of a query, e width of a value, s stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.neighbourhoods import neighbourhoods
from opsin.registry import MODELS


class RelativePosition(nn.Module):
    """Logits by the row and by the column between query and key; parameters `height_rel`, `width_rel`.

    Args:
        window: keys w on a side of a neighbourhood.
        dim: width d of a query.
        scale: factor on the logits.
    """

    def __init__(self, window: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.window, self.scale = window, scale
        self.height_rel = nn.Parameter(torch.empty(2 * window - 1, dim))
        self.width_rel = nn.Parameter(torch.empty(2 * window - 1, dim))

    def forward(self, q: Tensor) -> Tensor:
        """Queries (B, n, y, x, d) to (B, n, y, x, u, v)."""
        rows = self._diagonals(q.transpose(2, 3), self.height_rel).transpose(2, 3)
        columns = self._diagonals(q, self.width_rel)
        return columns.unsqueeze(-2) + rows.unsqueeze(-1)

    def _diagonals(self, q: Tensor, table: Tensor) -> Tensor:
        """(…, x, d) and (2w - 1, d) to (…, x, w): query x and key v meet in row v - x + w - 1.

        With a row of 2w products behind one another, that entry lies at x * (2w - 1) + v + w - 1: the last w
        columns of the same memory in rows of 2w - 1.
        """
        queries, width = q.shape[-2], 2 * self.window - 1
        products = q @ F.pad(table * self.scale, (0, 0, 0, 1)).t()
        rows = products.flatten(-2)[..., : queries * width].unflatten(-1, (queries, width))
        return rows[..., self.window - 1 :]


@MODELS.register_module()
class HaloAttention(nn.Module):
    """Blocked local self-attention with halo.

    Args:
        dim: channels C of the map.
        dim_out: channels of the output, `num_heads` times the width of a value; `dim` if None.
        stride: 1, or 2 to give every second query only.
        num_heads: heads.
        dim_head: width of a query; if None, `dim_out * qk_ratio` rounded to a multiple of 8, over the heads.
        block_size: queries b on a side of a block.
        halo_size: pixels h around the block that are keys too.
        qk_ratio: see `dim_head`.
        qkv_bias: whether the projections have biases (keys beyond the map stay zero).
        avg_down: a strided layer computes all queries and takes the mean of each 2x2; so it does anyway if
            `stride` does not divide `block_size`.
        scale_pos_embed: scale the relative term like the content's.

    Raises:
        UserError: if `num_heads` does not divide `dim_out`, or a size or the stride is impossible.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        *,
        stride: int = 1,
        num_heads: int = 8,
        dim_head: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
    ) -> None:
        super().__init__()
        dim_out = dim_out or dim
        if dim_out % num_heads:
            raise UserError(f"{num_heads} heads of HaloAttention do not divide its width of {dim_out}")
        if stride not in (1, 2) or block_size < 1 or halo_size < 0:
            raise UserError(
                f"HaloAttention has no stride={stride}, block_size={block_size}, halo_size={halo_size}",
                "the stride is 1 or 2, a block has at least 1 query, a halo at least 0 pixels",
            )
        self.num_heads, self.block_size, self.halo_size = num_heads, block_size, halo_size
        self.dim_head = dim_head or round_to_8(dim_out * qk_ratio) // num_heads
        self.value_width = dim_out // num_heads
        self.pools = stride == 2 and (avg_down or block_size % 2 == 1)
        self.query_stride = 1 if self.pools else stride
        position_scale = self.dim_head**-0.5 if scale_pos_embed else 1.0
        width = num_heads * self.dim_head
        self.q = nn.Conv2d(dim, width, 1, stride=self.query_stride, bias=qkv_bias)
        self.kv = nn.Conv2d(dim, width + dim_out, 1, bias=qkv_bias)
        self.pos_embed = RelativePosition(block_size + 2 * halo_size, self.dim_head, position_scale)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal weights: of projections by fan in, of tables by the width of a query."""
        for conv in (self.q, self.kv):
            nn.init.trunc_normal_(conv.weight, std=conv.in_channels**-0.5)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for table in self.pos_embed.parameters():
            nn.init.trunc_normal_(table, std=self.dim_head**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, dim_out, ceil(H / stride), ceil(W / stride))."""
        height, width = x.shape[2:]
        below, right = -height % self.block_size, -width % self.block_size
        x = F.pad(x, (0, right, 0, below)) if below or right else x
        x = self._attend(self.q(x).permute(0, 2, 3, 1), self.kv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        stride = self.query_stride
        if below or right:
            x = x[:, :, : -(-height // stride), : -(-width // stride)]
        return F.avg_pool2d(x, 2, ceil_mode=True) if self.pools else x

    def _attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """Queries (N, H / s, W / s, n * d), keys with values (N, H, W, n * (d + e)) to (…, n * e)."""
        heads, side = self.num_heads, self.block_size // self.query_stride
        images, rows, columns = q.shape[0], q.shape[1] // side, q.shape[2] // side
        q = q.reshape(images, rows, side, columns, side, heads, -1).permute(0, 1, 3, 5, 2, 4, 6)
        q = q.flatten(0, 2).contiguous()  # B n y x d
        position = self.pos_embed(q).flatten(2, 3).flatten(3)
        kv = neighbourhoods(kv, (self.block_size,) * 2, (self.halo_size,) * 2)
        kv = kv.flatten(0, 2).flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2)  # B n uv d+e
        k, v = kv.split((self.dim_head, self.value_width), dim=-1)
        y = attention_of_two_widths(q.flatten(2, 3), k, v, position)
        y = y.unflatten(2, (side, side)).unflatten(0, (images, rows, columns)).permute(0, 1, 4, 2, 5, 3, 6)
        return y.flatten(5).flatten(3, 4).flatten(1, 2)


def attention_of_two_widths(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of queries (…, Q, d), keys (…, K, d) and values (…, K, e) with a bias (…, Q, K).

    Fused kernels want one width for all three, so the narrower side is filled up with zeros.
    """
    width, value_width = q.shape[-1], v.shape[-1]
    if width < value_width:
        q, k = (F.pad(tensor, (0, value_width - width)) for tensor in (q, k))
    elif value_width < width:
        v = F.pad(v, (0, width - value_width))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=width**-0.5)
    return y[..., :value_width]


def round_to_8(width: float) -> int:
    """The nearest multiple of 8, at least 8, and not more than a tenth below `width`."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
