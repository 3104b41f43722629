"""The transformer block of latent diffusion (LDM, arXiv 2112.10752), for which AgentSD's patch is written.

Names are those of the LDM code and its checkpoints. What a naive reading gets wrong: queries, keys and
values have no bias, the output projection has one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.geglu import FeedForward


class CrossAttention(nn.Module):
    """Softmax attention to `context`, or to the tokens themselves; `to_q`, `to_k`, `to_v`, `to_out.0`.

    Args:
        query_dim: width C of the tokens.
        context_dim: width of what they attend to; C if None.
        heads: heads.
        dim_head: width of a head.
    """

    def __init__(self, query_dim: int, context_dim: int | None, heads: int, dim_head: int) -> None:
        super().__init__()
        inner_dim, context_dim = heads * dim_head, context_dim or query_dim
        self.heads, self.scale = heads, dim_head**-0.5
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, query_dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, N, C) to the same shape; `context` is (B, M, context_dim)."""
        context = x if context is None else context
        q, k, v = (
            tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.to_out(y.transpose(1, 2).flatten(2))


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to a context (text), feed-forward network; all normed first and residual.

    Args:
        dim: width C.
        heads: heads.
        dim_head: width of a head.
        context_dim: width of the context.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.attn1 = CrossAttention(dim, None, heads, dim_head)
        self.ff = FeedForward(dim)
        self.attn2 = CrossAttention(dim, context_dim, heads, dim_head)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, N, C) and context (B, M, context_dim) to (B, N, C)."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context=context) + x
        return self.ff(self.norm3(x)) + x
