"""MAFG's cross-attention: the middle candidate asks, and every Wiener candidate answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.windows import partition, reverse
from opsin.restoration.metalens.models.acformer.attention import keys_and_values


class FilterAttention(nn.Module):
    """Each candidate, refined by what the middle one looks for in it.

    Args:
        filters: candidates M; the query is that of number M // 2.
        dim: width E inside.
        heads: heads.
        window: side of a window of queries; keys reach a quarter of it further on every side.
    """

    def __init__(self, filters: int, dim: int = 32, heads: int = 2, window: int = 8) -> None:
        super().__init__()
        self.middle, self.heads, self.window, self.halo = filters // 2, heads, window, window // 4
        self.pos_emb_q = nn.Parameter(torch.empty(window**2, dim))
        self.pos_emb_k = nn.Parameter(torch.empty((window + 2 * self.halo) ** 2, dim))
        self.proj_high = nn.Conv2d(3, dim, 1)
        self.proj_rgb = nn.Conv2d(dim, 3, 1)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj_out = nn.Linear(dim, dim, bias=False)
        for table in (self.pos_emb_q, self.pos_emb_k):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, candidates: Tensor) -> Tensor:
        """(B, M, 3, H, W), sides multiples of the window, to (B, 3·M, H, W), one candidate after another."""
        batch, filters = candidates.shape[:2]
        features = self.proj_high(candidates.flatten(0, 1))
        normed = self.norm(features.permute(0, 2, 3, 1))
        q_weight, kv_weight = self.qkv.weight.split((self.qkv.in_features, 2 * self.qkv.in_features))
        asking = normed.unflatten(0, (batch, filters))[:, self.middle]
        q = partition(F.linear(asking, q_weight), (self.window, self.window)) + self.pos_emb_q
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = keys_and_values(F.linear(normed, kv_weight), self.window, self.halo, self.heads)
        k = k + self.pos_emb_k.unflatten(1, (self.heads, -1)).transpose(0, 1)
        # k, v: windows of all candidates; q: those of the middle one, seen by all
        q = q.unflatten(0, (batch, 1, -1)).expand(-1, filters, -1, -1, -1, -1).flatten(0, 2)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = reverse(self.proj_out(y), (self.window, self.window), (features.shape[2], features.shape[3]))
        refined = self.proj_rgb(features + y.permute(0, 3, 1, 2))
        return refined.unflatten(0, (batch, filters)).flatten(1, 2)
