"""The two attentions of MoH-ViT: TransNeXt's (arXiv 2311.17132), with a mixture of heads.

Both compare queries and keys of unit length; a learned embedding is added to the query, and the logits grow
with a learned temperature and the logarithm of the number of keys. The last stage attends to all pixels, the
others to the 3x3 pixels around and to a pooled map at once, in one softmax. Authors' code: DaiShiResearch/
TransNeXt (Apache-2.0), whose native version the parity cases pin.

What a naive reading gets wrong: at the border a window has fewer than nine pixels, which the length scale
counts; the tokens that are learned for each place of the window meet the query before its embedding is
added, and what they give is added to the weights after the softmax.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.moh.positions import Positions, Size
from opsin.core.backbones.moh.routing import RoutedHeads
from opsin.core.errors import UserError
from opsin.core.layers.biased_attention import biased_attention

CPB_DIM = 512


class CosineHeads(RoutedHeads):
    """Temperature, query embedding, position network, router and projection, which both attentions have.

    Args:
        dim: width C.
        num_heads: heads h of width d = C / h.
        shared_heads: the first heads, always on.
        routed_heads: how many of the others each token uses.

    Raises:
        UserError: for numbers of heads that do not go together.
    """

    def __init__(self, dim: int, num_heads: int, shared_heads: int, routed_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide a width of {dim}")
        # softplus of it is 1 / 0.24
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), math.log(math.expm1(1 / 0.24))))
        self.query_embedding = nn.Parameter(torch.empty(num_heads, 1, dim // num_heads))
        nn.init.trunc_normal_(self.query_embedding, std=0.02)
        self.cpb_fc1 = nn.Linear(2, CPB_DIM)
        self.cpb_fc2 = nn.Linear(CPB_DIM, num_heads)
        self.proj = nn.Linear(dim, dim)
        self.add_router(dim, num_heads, shared_heads, routed_heads)

    def position_bias(self, positions: Positions) -> Tensor:
        """What is added to the logits, (h, M, N) for M keys and N queries."""
        offsets = positions.offsets.to(self.cpb_fc1.weight.dtype)
        biases = self.cpb_fc2(self.cpb_fc1(offsets).relu_())
        index = positions.index
        return biases.t().index_select(1, index.flatten()).unflatten(1, index.shape)

    def scale(self, positions: Positions) -> Tensor:
        """What queries are multiplied by, (h, 1, N)."""
        return F.softplus(self.temperature) * positions.log_keys.to(self.temperature.dtype)

    def gate(self, heads: Tensor, x: Tensor) -> Tensor:
        """Outputs of heads (B, N, h, d), gated by the tokens `x` (B, …, C), to tokens of the shape of `x`."""
        gated = heads * self.gates(x).flatten(1, -2)[..., None]
        return self.proj(gated.flatten(2).view_as(x))


class CosineAttention(CosineHeads):
    """Attention over all pixels; parameters of `CosineHeads` and `qkv`.

    Args:
        dim, num_heads, shared_heads, routed_heads: see `CosineHeads`.
        qkv_bias: whether `qkv` has a bias.
    """

    def __init__(
        self, dim: int, num_heads: int, shared_heads: int, routed_heads: int, *, qkv_bias: bool = True
    ) -> None:
        super().__init__(dim, num_heads, shared_heads, routed_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, H, W, C) to the same shape; the keys of `positions` are all pixels."""
        q, k, v = self.qkv(x.flatten(1, 2)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = (F.normalize(q, dim=-1) + self.query_embedding) * self.scale(positions).transpose(1, 2)
        bias = self.position_bias(positions).transpose(1, 2)
        y = biased_attention(q, F.normalize(k, dim=-1), v, bias, 1.0)
        return self.gate(y.transpose(1, 2), x)


class AggregatedAttention(CosineHeads):
    """Attention to a window of pixels and to a pooled map; parameters of `CosineHeads` and those below.

    `q` and `kv` project; `sr` and `norm` make the pooled map; `relative_pos_bias_local`, `learnable_tokens`
    and `learnable_bias` belong to the places of the window. Within, tokens are (B, h, d, N): pixels last.

    Args:
        dim, num_heads, shared_heads, routed_heads: see `CosineHeads`.
        window_size: side of the window, odd.
        qkv_bias: whether `q` and `kv` have a bias.

    Raises:
        UserError: if `window_size` is even.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        shared_heads: int,
        routed_heads: int,
        *,
        window_size: int = 3,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, shared_heads, routed_heads)
        if window_size % 2 == 0:
            raise UserError(f"window_size {window_size} of AggregatedAttention must be odd")
        self.window_size = window_size
        places, head_dim = window_size**2, dim // num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.sr = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)
        self.relative_pos_bias_local = nn.Parameter(torch.empty(num_heads, places))
        self.learnable_tokens = nn.Parameter(torch.empty(num_heads, head_dim, places))
        self.learnable_bias = nn.Parameter(torch.zeros(num_heads, 1, places))
        nn.init.trunc_normal_(self.relative_pos_bias_local, std=0.0004)
        nn.init.trunc_normal_(self.learnable_tokens, std=0.02)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, H, W, C) to the same shape; the keys of `positions` are those of the pooled map."""
        size = positions.size
        q = _unit(self._by_heads(self.q(x)))  # B, h, d, N
        scaled = (q + self.query_embedding.transpose(1, 2)) * self.scale(positions)
        k, v = self._by_heads(self.kv(x)).chunk(2, 1)
        k_pool, v_pool = self._by_heads(self.kv(self._pooled(x, positions.pool))).chunk(2, 1)

        far = _unit(k_pool).transpose(2, 3) @ scaled + self.position_bias(positions)
        near_bias = self.relative_pos_bias_local[..., None].masked_fill(~positions.near, float("-inf"))
        near = self._near_logits(scaled, _unit(k), size) + near_bias
        count = near.shape[2], far.shape[2]
        near, far = torch.cat((near, far), 2).softmax(2).split(count, 2)  # B, h, w² or M, N
        learned = self.learnable_tokens.transpose(1, 2) @ q + self.learnable_bias.transpose(1, 2)
        y = self._near_values(near + learned, v, size) + v_pool @ far  # B, h, d, N
        return self.gate(y.permute(0, 3, 1, 2), x)

    def _by_heads(self, x: Tensor) -> Tensor:
        """(B, H, W, n * h * d) to (B, n * h, d, H * W), contiguous."""
        head_dim = self.query_embedding.shape[2]
        return x.flatten(1, 2).transpose(1, 2).unflatten(1, (-1, head_dim)).contiguous()

    def _pooled(self, x: Tensor, pool: Size) -> Tensor:
        """(B, H, W, C) to the normed map (B, *pool, C) that far keys and values are made of."""
        reduced = F.gelu(F.linear(x, self.sr.weight.flatten(1), self.sr.bias)).permute(0, 3, 1, 2)
        return self.norm(F.adaptive_avg_pool2d(reduced, pool).permute(0, 2, 3, 1))

    def _near_logits(self, q: Tensor, k: Tensor, size: Size) -> Tensor:
        """Products of queries and the keys around them, both (B, h, d, N): (B, h, w², N)."""
        q = q.unflatten(3, size)
        return torch.stack([(q * keys).sum(2) for keys in self._shifted(k, size)], 2).flatten(3)

    def _near_values(self, weights: Tensor, v: Tensor, size: Size) -> Tensor:
        """Sums of the values (B, h, d, N) around every pixel by `weights` (B, h, w², N): (B, h, d, N)."""
        by_place = weights.unflatten(3, size).unsqueeze(2).unbind(3)
        y = torch.zeros_like(v.unflatten(3, size))
        for weight, values in zip(by_place, self._shifted(v, size), strict=True):
            y = y + weight * values
        return y.flatten(3)

    def _shifted(self, maps: Tensor, size: Size) -> Iterator[Tensor]:
        """For every place of the window, row by row, (B, h, d, H, W): what lies there, zeros off the map.

        These are views of one padded map; nine products of views take a third of the time of unfolding.
        """
        height, width = size
        reach = self.window_size // 2
        padded = F.pad(maps.unflatten(3, size), (reach,) * 4)
        for row in range(self.window_size):
            for column in range(self.window_size):
                yield padded[..., row : row + height, column : column + width]


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1 along dimension 2, where `F.normalize` takes three to ten times as long."""
    return x * x.square().sum(2, keepdim=True, dtype=torch.float32).clamp(min=1e-24).rsqrt()
