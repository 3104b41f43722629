"""Grouped-query attention (GQA, arXiv 2305.13245) as the experiments of arXiv 2401.11143 use it.

What a naive reading gets wrong: the query heads that share a key head do not attend one by one; their logits
are summed and there is one softmax a key head, so the result is as wide as the keys. Logits are divided by
the root of the heads' width twice. There is no residual.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS


@MODELS.register_module()
class GroupedQueryAttention(nn.Module):
    """Attention over a sequence; parameters `q_proj`, `k_proj`, `v_proj`, `norm` and `out_proj`.

    Args:
        embed_dim: width D.
        query_heads: heads of queries, D / query_heads wide.
        kv_heads: heads of keys and values; query heads of one key head follow each other.

    Raises:
        UserError: if heads don't divide what they should.
    """

    def __init__(self, embed_dim: int, query_heads: int = 8, kv_heads: int = 2) -> None:
        super().__init__()
        if embed_dim % query_heads or query_heads % kv_heads:
            raise UserError(f"{query_heads} query heads must divide {embed_dim}, and {kv_heads} divide them")
        self.kv_heads, self.head_dim = kv_heads, embed_dim // query_heads
        width = kv_heads * self.head_dim
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.k_proj = nn.Linear(embed_dim, width)
        self.v_proj = nn.Linear(embed_dim, width)
        self.norm = nn.LayerNorm(width)
        self.out_proj = nn.Linear(width, embed_dim)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        # the sum of logits is the logit of the summed queries
        q = self.q_proj(x).unflatten(2, (self.kv_heads, -1, self.head_dim)).sum(3)
        k, v = (layer(x).unflatten(2, (self.kv_heads, -1)) for layer in (self.k_proj, self.v_proj))
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=1 / self.head_dim)
        return self.out_proj(self.norm(out.transpose(1, 2).flatten(2)))
