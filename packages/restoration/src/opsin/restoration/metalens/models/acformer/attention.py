"""The two attentions of a STAF block: among the pixels around a window, and among channels.

Both can look at high frequencies alone: their queries are then what a local average leaves of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.halonet.attention import RelativePosition
from opsin.core.layers.biased_attention import biased_attention
from opsin.core.layers.neighbourhoods import neighbourhoods
from opsin.core.layers.windows import partition, reverse


def high_pass(q: Tensor, kernel: int) -> Tensor:
    """A map (B, C, H, W) without its average over `kernel` x `kernel` pixels (zeros outside); 0: as it is."""
    return q - F.avg_pool2d(q, kernel, 1, kernel // 2) if kernel else q


def keys_and_values(kv: Tensor, window: int, halo: int, heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values around each window, of maps (B, H, W, 2·C) in which they lie behind one another.

    Returns:
        Two tensors (B·windows, heads, (window + 2·halo)², C / heads); zeros beyond the map.
    """
    around = neighbourhoods(kv, (window, window), (halo, halo)).flatten(0, 2).flatten(1, 2)
    k, v = around.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    return k, v


class OverlappingAttention(nn.Module):
    """Windows of queries, and keys from larger windows around them, with relative positions.

    Args:
        dim: channels C.
        heads: heads.
        dim_head: width of a head.
        window: side of a window of queries.
        halo: pixels around it that are keys too.
        kernel: of the high pass of queries; 0: none.
        bias: whether the projections have biases.
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, window: int, halo: int, kernel: int, bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.window, self.halo, self.kernel = heads, window, halo, kernel
        self.scale = dim_head**-0.5
        inner = heads * dim_head
        self.qkv = nn.Conv2d(dim, 3 * inner, 1, bias=bias)
        self.rel_pos_emb = RelativePosition(window + 2 * halo, dim_head, self.scale)
        for table in self.rel_pos_emb.parameters():
            nn.init.normal_(table, std=self.scale)
        self.project_out = nn.Conv2d(inner, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides multiples of the window, to the same shape."""
        size, window = (x.shape[2], x.shape[3]), (self.window, self.window)
        qkv = self.qkv(x)
        inner = qkv.shape[1] // 3
        q = high_pass(qkv[:, :inner], self.kernel).permute(0, 2, 3, 1)
        q = partition(q, window).unflatten(2, (self.heads, -1)).transpose(1, 2).contiguous()
        k, v = keys_and_values(qkv[:, inner:].permute(0, 2, 3, 1), self.window, self.halo, self.heads)
        position = self.rel_pos_emb(q.unflatten(2, window)).flatten(2, 3).flatten(3)
        y = biased_attention(q, k, v, position, self.scale).transpose(1, 2).flatten(2)
        return self.project_out(reverse(y, window, size).permute(0, 3, 1, 2))


class ChannelAttention(nn.Module):
    """Transposed attention (Restormer, arXiv 2111.09881): channels of a head attend to one another.

    Args:
        dim: channels C.
        heads: heads; divides `dim`.
        kernel: of the high pass of queries; 0: none.
        bias: whether the convolutions have biases.
    """

    def __init__(self, dim: int, heads: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (t.flatten(2).unflatten(1, (self.heads, -1)) for t in (high_pass(q, self.kernel), k, v))
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        y = weights.softmax(-1) @ v
        return self.project_out(y.flatten(1, 2).unflatten(2, x.shape[2:]))
