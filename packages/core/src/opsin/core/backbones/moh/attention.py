"""Plain softmax attention with a mixture of heads, to take the place of multi-head attention anywhere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.moh.routing import RoutedHeads
from opsin.core.errors import UserError
from opsin.registry import MODELS


@MODELS.register_module()
class MoHAttention(RoutedHeads):
    """Multi-head attention whose heads count by `RoutedHeads.gates`; parameters `qkv`, `proj` and routers.

    It takes the place of `layers.attention.Attention` or timm's, in configs too; `auxiliary_losses` gives the
    loss that keeps all heads in use.

    Args:
        dim: width C.
        num_heads: heads h; queries, keys and values are h * head_dim wide.
        shared_heads: the first heads, always on.
        routed_heads: how many of the others each token uses.
        qkv_bias: whether `qkv` has a bias.
        qk_norm: a LayerNorm over each head's queries and keys (`q_norm`, `k_norm`).
        head_dim: width d of a head; C / h if None.

    Raises:
        UserError: if `num_heads` does not divide `dim` and there is no `head_dim`, or for numbers of heads
            that do not go together.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        shared_heads: int,
        routed_heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide a width of {dim}", "set head_dim")
        head_dim = head_dim or dim // num_heads
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.add_router(dim, num_heads, shared_heads, routed_heads)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) to the same shape; `bias` is added to the logits, broadcast to (B, h, N, N)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask=bias)
        y = y.transpose(1, 2) * self.gates(x)[..., None]
        return self.proj(y.flatten(2))
