"""The mask decoder of Panoptic SegFormer: masks are read off the cross-attention's own logits.

Letters: B images, N queries, T = sum of H·W over three levels, C channels.

What a naive reading misses: a mask comes from the logits *before* the softmax, passes a ReLU at the end and
never a sigmoid; the masks that count are those of the tail, one more attention without values; a query's
position is added at the entry of every block and of the tail, and stays in the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.attention import Attention
from opsin.core.layers.mlp import Mlp

LEVELS = 3  # the coarsest level of the encoder is left out
NORM_EPS = 1e-6


@dataclass(frozen=True)
class DecodedMasks:
    """Masks of N queries, none of them negative, at the size H, W of the finest level.

    Args:
        masks: (B, N, H, W), the tail's.
        block_masks: of each block (B, N, H, W).
        block_queries: after each block (B, N, C).
    """

    masks: Tensor
    block_masks: list[Tensor]
    block_queries: list[Tensor]


class AttentionMasks(nn.Module):
    """Attention logits, and masks from them; parameters `q`, `k`, `linear_l1` … `linear_l3`, `linear`.

    Args:
        dim: C.
        num_heads: heads, each of which gives one channel a level.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        # Lists, as the ReLU after each is in `masks`.
        self.linear_l1 = nn.ModuleList([nn.Linear(num_heads, num_heads)])
        self.linear_l2 = nn.ModuleList([nn.Linear(num_heads, num_heads)])
        self.linear_l3 = nn.ModuleList([nn.Linear(num_heads, num_heads)])
        self.linear = nn.ModuleList([nn.Linear(LEVELS * num_heads, 1)])

    def logits(self, query: Tensor, memory: Tensor) -> Tensor:
        """Queries (B, N, C) and memory (B, T, C) to (B, heads, N, T)."""
        q, k = (
            linear(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in ((self.q, query), (self.k, memory))
        )
        return (q * self.scale) @ k.transpose(-2, -1)

    def masks(self, logits: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Logits (B, heads, N, T) to masks (B, N, H, W).

        The last layer mixes its 24 channels linearly, so each level is mixed to one channel before it is
        resized, instead of eight channels after.
        """
        lists = (self.linear_l1, self.linear_l2, self.linear_l3, self.linear)
        *layers, last = (cast("nn.Linear", entry[0]) for entry in lists)
        levels = logits.split([height * width for height, width in sizes], -1)
        shares = last.weight.split(self.num_heads, 1)
        mixed: Tensor = last.bias
        for size, level, layer, share in zip(sizes, levels, layers, shares, strict=True):
            channels = layer.weight @ level.flatten(2) + layer.bias[:, None]
            one = (share @ channels.relu()).view(-1, 1, *size)  # there may be no query, but one channel
            if size != sizes[0]:
                one = F.interpolate(one, size=sizes[0], mode="bilinear", align_corners=False)
            mixed = mixed + one
        return mixed.relu().view(*logits.shape[::2], *sizes[0])

    def forward(self, query: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """The masks (B, N, H, W) of queries (B, N, C) in a memory (B, T, C) of levels of these sizes."""
        return self.masks(self.logits(query, memory), sizes)


class MaskAttention(AttentionMasks):
    """Cross-attention that gives masks besides; adds the parameters `v` and `proj`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def attend(
        self, query: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """What the queries gathered (B, N, C), and their masks (B, N, H, W)."""
        logits = self.logits(query, memory)
        v = self.v(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        gathered = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.proj(gathered), self.masks(logits, sizes)


class MaskBlock(nn.Module):
    """Self-attention if asked for, mask attention, MLP; each with its residual before the norm.

    Args:
        dim: C.
        num_heads: heads of both attentions.
        hidden_dim: width inside the MLP.
        self_attn: whether queries see each other.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, *, self_attn: bool) -> None:
        super().__init__()
        self.head_norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MaskAttention(dim, num_heads)
        self.head_norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, hidden_dim)
        if self_attn:
            self.self_attention = Attention(dim, num_heads)
            self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.self_attn = self_attn

    def forward(
        self, query: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, N, C) to the same shape, and their masks (B, N, H, W)."""
        if self.self_attn:
            query = self.norm3(query + self.self_attention(query))
        gathered, masks = self.attn.attend(query, memory, sizes)
        query = self.head_norm1(query + gathered)
        return self.head_norm2(query + self.mlp(query)), masks


class MaskDecoder(nn.Module):
    """Blocks, and the tail whose masks are used; published as `MaskHead`.

    Args:
        dim: C.
        num_heads: heads.
        num_layers: blocks.
        hidden_dim: width inside the MLPs.
        self_attn: whether queries see each other (stuff) or not (things).
    """

    def __init__(
        self,
        dim: int = 256,
        num_heads: int = 8,
        num_layers: int = 6,
        hidden_dim: int = 1024,
        *,
        self_attn: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            MaskBlock(dim, num_heads, hidden_dim, self_attn=self_attn) for _ in range(num_layers)
        )
        self.attnen = AttentionMasks(dim, num_heads)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        position: Tensor | None = None,
    ) -> DecodedMasks:
        """Decodes masks.

        Args:
            query: (B, N, C).
            memory: (B, T, C), three levels one after another.
            sizes: height and width of the three levels, finest first.
            position: (B, N, C), added to the query before each block and before the tail.
        """
        block_masks, block_queries = [], []
        for block in self.blocks:
            query, masks = block(_moved(query, position), memory, sizes)
            block_masks.append(masks)
            block_queries.append(query)
        return DecodedMasks(self.attnen(_moved(query, position), memory, sizes), block_masks, block_queries)


def _moved(query: Tensor, position: Tensor | None) -> Tensor:
    return query if position is None else torch.add(query, position)
