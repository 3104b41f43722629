"""The attention of MoH-LLaMA3: causal, with rotary positions, its heads routed without any new weights.

MoH (arXiv 2410.11842). Authors' code: SkyworkAI/MoH (Apache-2.0), inference only; LLaMA's weights come under
Meta's licence. Half of a trained LLaMA's heads are always on, and each token uses half of the others: those
whose queries are longest.

What a naive reading gets wrong: the lengths are those of the queries before they are turned; they are divided
by their standard deviation over the token's routed heads, without taking the mean off; gates are 0 or 1. In
training gradients pass the gates as if these were the probabilities (the paper's straight-through estimator;
the authors' training code is not published).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.moh.routing import RoutedHeads
from opsin.core.errors import UserError
from opsin.registry import MODELS


def rotary_table(positions: Tensor, dim: int, theta: float) -> Tensor:
    """Cosines and sines (2, …, dim / 2) of the angles by which positions (…) turn pairs of channels."""
    rates = theta ** (-torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
    angles = positions[..., None] * rates
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns the channels i and i + d / 2 of x (B, heads, L, d) by the table (2, L, d / 2)."""
    cos, sin = table.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


@MODELS.register_module()
class MoHLlamaAttention(RoutedHeads):
    """Grouped-query attention with routed heads; parameters `q_proj`, `k_proj`, `v_proj` and `o_proj`.

    Args:
        dim: width C.
        num_heads: query heads h of width d = C / h, an even number.
        num_kv_heads: heads of keys and values, each shared by h / num_kv_heads query heads in a row.
        shared_heads: the first heads, always on; half of all if None.
        routed_heads: how many of the others each token uses; a quarter of all if None.
        rope_theta: base of the rotary positions.
        bias: whether the projections have a bias.

    Raises:
        UserError: for numbers of heads that do not go together.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        *,
        shared_heads: int | None = None,
        routed_heads: int | None = None,
        rope_theta: float = 500000.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dim % (2 * num_heads) or num_heads % num_kv_heads:
            raise UserError(
                f"{num_heads} heads, {num_kv_heads} of them with keys, do not go with a width of {dim}",
                "each must be evenly wide, and keys be shared by the same number of heads",
            )
        self.set_heads(
            num_heads,
            num_heads // 2 if shared_heads is None else shared_heads,
            num_heads // 4 if routed_heads is None else routed_heads,
        )
        self.rope_theta, self.head_dim = rope_theta, dim // num_heads
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, num_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(dim, num_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Tokens (B, L, C), of which each sees itself and those before, to the same shape.

        `positions` (L,) are the tokens' places in the text; 0 … L - 1 if None.
        """
        q, k, v = (p(x).unflatten(2, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        gates = self._gates_of_queries(q)
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        table = rotary_table(positions, self.head_dim, self.rope_theta)
        q, k, v = rotate(q.transpose(1, 2), table), rotate(k.transpose(1, 2), table), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
        return self.o_proj((y * gates[..., None]).flatten(2))

    def gates(self, x: Tensor) -> Tensor:
        """Tokens (B, L, C) to (B, L, h): 1 where a token uses a head, 0 where not."""
        return self._gates_of_queries(self.q_proj(x).unflatten(2, (-1, self.head_dim)))

    def _gates_of_queries(self, q: Tensor) -> Tensor:
        """Queries (B, L, h, d), not turned, to (B, L, h)."""
        lengths = q[:, :, self.shared_heads :].norm(dim=3)
        probabilities = (lengths / lengths.std(2, keepdim=True)).softmax(2)
        routed = self.choose(probabilities)
        if self.training:
            routed = routed + (probabilities - probabilities.detach())
        return torch.cat((torch.ones_like(q[:, :, : self.shared_heads, 0]), routed), 2)
