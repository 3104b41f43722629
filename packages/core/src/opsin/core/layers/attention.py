"""Multi-head self-attention (Attention Is All You Need, arXiv 1706.03762) over all tokens."""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Softmax attention with one linear layer for queries, keys and values; parameters `qkv` and `proj`.

    Args:
        dim: width C; its parts go to q, k, v in this order, each (heads, C / heads).
        num_heads: heads; divides `dim`.
        qkv_bias: whether `qkv` has a bias.
        scale: factor on the logits; (C / heads) ** -0.5 if None.

    Raises:
        ValueError: if `num_heads` does not divide `dim`.
    """

    def __init__(
        self, dim: int, num_heads: int, *, qkv_bias: bool = True, scale: float | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {dim}")
        self.num_heads, self.scale = num_heads, scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) to the same shape; `bias` is added to the logits, broadcast to (B, heads, N, N)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))
