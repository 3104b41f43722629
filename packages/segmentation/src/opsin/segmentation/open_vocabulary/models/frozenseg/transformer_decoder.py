"""FrozenSeg's decoder: Mask2Former's masked attention with two injectors of SAM's features.

Letters: B images, Q queries, C channels, D width of the text features. Level 0 is the coarsest CLIP map.

What a naive reading misses: the feature injector always starts from the original CLIP map, so what layer 0
injected is not there in layer 3; after it the keys of that layer have no position; the query injector uses
the projection of the mask features' pooling, on SAM's map before its encoder, and acts after the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.layers import SinePositionalEncoding
from torch import Tensor, nn

from opsin.segmentation.open_vocabulary.models.frozenseg.pixel_decoder import LEVELS, sine, tokens
from opsin.segmentation.open_vocabulary.models.frozenseg.text_classifier import TextClassifier
from opsin.segmentation.open_vocabulary.models.mask_pooling import mask_pool, resize

FEATURE_INJECTION = 0  # the level whose layers get SAM's features
QUERY_INJECTION = 2  # the level after whose layers queries get SAM's features
INITIAL_TEMPERATURE = 0.07


class Prediction(NamedTuple):
    """Class logits (B, Q, classes + 1), void last, and mask logits (B, Q, H, W)."""

    logits: Tensor
    masks: Tensor


class CrossAttention(nn.Module):
    """Queries attend to keys; residual, then norm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        *,
        query_pos: Tensor,
        pos: Tensor | None,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, C) to the same shape.

        Args:
            x: the queries.
            memory: (B, K, C) values, and keys without their position.
            query_pos: added to the queries.
            pos: added to the keys.
            blocked: (B * heads, Q, K), True where a query may not look.
        """
        keys = memory if pos is None else memory + pos
        seen, _ = self.multihead_attn(x + query_pos, keys, memory, attn_mask=blocked, need_weights=False)
        normed: Tensor = self.norm(x + seen)
        return normed


class SelfAttention(nn.Module):
    """Queries attend to each other; residual, then norm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        """(B, Q, C) to the same shape; `pos` is added to queries and keys."""
        placed = x + pos
        seen, _ = self.self_attn(placed, placed, x, need_weights=False)
        normed: Tensor = self.norm(x + seen)
        return normed


class FeedForward(nn.Module):
    """Linear, ReLU, linear; residual, then norm."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        normed: Tensor = self.norm(x + self.linear2(F.relu(self.linear1(x))))
        return normed


class ThreeLayers(nn.Module):
    """Three linear layers with ReLU between; the last one's width is `out_dim`."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise((dim, dim, dim, out_dim)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, out_dim)."""
        first, second, last = self.layers
        out: Tensor = last(F.relu(second(F.relu(first(x)))))
        return out


class TransformerDecoder(nn.Module):
    """Queries to classes and masks, `depth` + 1 predictions.

    Args:
        dim: channels C of queries, maps and mask features.
        depth: layers; layer i works on level i % 3.
        num_queries: Q.
        num_heads: heads of every attention.
        ffn_dim: width of the feed-forward networks.
        text_dim: D, width of the text features.
    """

    def __init__(
        self,
        *,
        dim: int = 256,
        depth: int = 9,
        num_queries: int = 250,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        text_dim: int = 768,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttention(dim, num_heads) for _ in range(depth)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttention(dim, num_heads) for _ in range(depth)
        )
        self.transformer_cross_attention_layers_sam = nn.ModuleList(
            CrossAttention(dim, num_heads) if i % LEVELS == FEATURE_INJECTION else nn.Identity()
            for i in range(depth)
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(dim, ffn_dim) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_feat = nn.Embedding(num_queries, dim)
        self.query_embed = nn.Embedding(num_queries, dim)
        self.level_embed = nn.Embedding(LEVELS, dim)
        self.mask_embed = ThreeLayers(dim, dim)
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.class_embed = ThreeLayers(dim, text_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        self.positions = SinePositionalEncoding(dim // 2, normalize=True)
        for name, parameter in self.named_parameters():
            if name.startswith("transformer_") and parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        maps: Sequence[Tensor],
        mask_features: Tensor,
        sam: Tensor,
        sam_fpn: Tensor,
        text: TextClassifier,
    ) -> list[Prediction]:
        """The predictions of the initial queries and after every layer.

        Args:
            maps: three maps (B, C, H_i, W_i), low to high resolution.
            mask_features: (B, C, H, W).
            sam: (B, C, h, w), SAM's image embedding.
            sam_fpn: (B, C, h', w'), the same after its encoder.
            text: the classes.
        """
        batch = len(mask_features)
        memories = [tokens(m) + e for m, e in zip(maps, self.level_embed.weight, strict=True)]
        positions = [tokens(sine(self.positions, m)) for m in maps]
        pos = self.query_embed.weight.expand(batch, -1, -1)
        queries = self.query_feat.weight.expand(batch, -1, -1)
        predictions = [self.predict(queries, mask_features, text)]
        for i, cross_attention in enumerate(self.transformer_cross_attention_layers):
            level = i % LEVELS
            memory, memory_pos = memories[level], positions[level]
            if level == FEATURE_INJECTION:
                memory = self._inject(i, memory, memory_pos, sam_fpn, maps[level].shape[-2:])
            blocked = self._blocked(predictions[-1].masks, maps[level].shape[-2:])
            queries = cross_attention(
                queries,
                memory,
                query_pos=pos,
                pos=None if level == FEATURE_INJECTION else memory_pos,
                blocked=blocked,
            )
            queries = self.transformer_self_attention_layers[i](queries, pos)
            queries = self.transformer_ffn_layers[i](queries)
            predictions.append(self.predict(queries, mask_features, text))
            if level == QUERY_INJECTION:
                queries = queries + self._mask_pooling_proj(mask_pool(sam, predictions[-1].masks))
        return predictions

    def predict(self, queries: Tensor, mask_features: Tensor, text: TextClassifier) -> Prediction:
        """Masks of the queries (B, Q, C), and their classes by what the masks cover."""
        normed = self.decoder_norm(queries)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(normed), mask_features)
        covered = self._mask_pooling_proj(mask_pool(mask_features, masks))
        return Prediction(text.logits(self.class_embed(covered + normed), self.logit_scale), masks)

    def _inject(
        self, layer: int, memory: Tensor, pos: Tensor, sam_fpn: Tensor, size: Sequence[int]
    ) -> Tensor:
        """The CLIP map (B, K, C) after it attended to SAM's map."""
        sam_map = resize(sam_fpn, size)
        keys = tokens(sam_map) + self.level_embed.weight[FEATURE_INJECTION]
        inject = self.transformer_cross_attention_layers_sam[layer]
        injected: Tensor = inject(memory, keys, query_pos=pos, pos=tokens(sine(self.positions, sam_map)))
        return injected

    def _blocked(self, masks: Tensor, size: Sequence[int]) -> Tensor:
        """(B * heads, Q, K): where a query's last mask says no; an empty mask blocks nothing."""
        blocked = resize(masks.detach(), size).flatten(2) < 0
        blocked = blocked & ~blocked.all(-1, keepdim=True)
        return blocked[:, None].expand(-1, self.num_heads, -1, -1).flatten(0, 1)
