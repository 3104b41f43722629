"""Deformable-DETR encoder and the location decoder of Panoptic SegFormer.

Deformable DETR, arXiv 2010.04159. Letters: B images, L levels, S = sum of H·W over the levels, Q queries,
C channels.

What a naive reading misses: reference points are cell centres in units of the un-padded part of their own
level, scaled by the un-padded share of the level that is sampled; the decoder's reference boxes are detached
from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmdet.models.layers import SinePositionalEncoding, inverse_sigmoid
from torch import Tensor, nn

from opsin.core.ops.ms_deform_attn import MultiScaleDeformableAttention

Size = tuple[int, int]


@dataclass(frozen=True)
class Memory:
    """The encoder's tokens.

    Args:
        tokens: (B, S, C), level after level, row by row.
        sizes: height and width of each level.
        shapes: (L, 2), the same as the attention takes them.
        padding: (B, S), True where a token lies outside the picture.
        valid_ratios: (B, L, 2), the un-padded share of each level's width and height.
    """

    tokens: Tensor
    sizes: list[Size]
    shapes: Tensor
    padding: Tensor
    valid_ratios: Tensor


@dataclass(frozen=True)
class Located:
    """What the location decoder found, by layer.

    Args:
        queries: of each layer (B, Q, C).
        boxes: of each layer (B, Q, 4), centre and size in 0..1 of the picture.
    """

    queries: list[Tensor]
    boxes: list[Tensor]


class EncoderLayer(nn.Module):
    """Deformable self-attention and FFN, each with its residual before the norm."""

    def __init__(self, dim: int, num_heads: int, num_levels: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_deformable(dim, num_heads, num_levels, dropout)])
        self.ffns = nn.ModuleList([_ffn(dim, ffn_dim, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, tokens: Tensor, position: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """Tokens (B, S, C) to the same shape; `references` (B, S, L, 2)."""
        (attention,), (ffn,), norms = self.attentions, self.ffns, self.norms
        tokens = norms[0](
            attention(tokens, tokens, references, memory.shapes, position, key_padding_mask=memory.padding)
        )
        out: Tensor = norms[1](ffn(tokens))
        return out


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the memory, FFN."""

    def __init__(self, dim: int, num_heads: int, num_levels: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self_attention = MultiheadAttention(
            dim, num_heads, attn_drop=dropout, dropout_layer=_dropout(dropout), batch_first=True
        )
        self.attentions = nn.ModuleList([self_attention, _deformable(dim, num_heads, num_levels, dropout)])
        self.ffns = nn.ModuleList([_ffn(dim, ffn_dim, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, query: Tensor, position: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """Queries (B, Q, C) to the same shape; `references` (B, Q, L, 2 or 4)."""
        (self_attention, cross_attention), (ffn,), norms = self.attentions, self.ffns, self.norms
        query = norms[0](self_attention(query, query_pos=position, key_pos=position))
        query = norms[1](
            cross_attention(
                query,
                memory.tokens,
                references,
                memory.shapes,
                position,
                key_padding_mask=memory.padding,
            )
        )
        out: Tensor = norms[2](ffn(query))
        return out


class Layers(nn.Module):
    """A stack under the published name `layers`."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DeformableTransformer(nn.Module):
    """The encoder over the neck's maps and the decoder that locates things.

    Args:
        dim: C.
        num_heads: heads of every attention.
        num_levels: L.
        ffn_dim: width inside the FFNs.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: everywhere.
    """

    def __init__(
        self,
        dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        ffn_dim: int = 1024,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        widths = (dim, num_heads, num_levels, ffn_dim, dropout)
        self.position = SinePositionalEncoding(dim // 2, normalize=True, offset=-0.5)
        self.level_embeds = nn.Parameter(torch.empty(num_levels, dim))
        self.encoder = Layers([EncoderLayer(*widths) for _ in range(encoder_layers)])
        self.decoder = Layers([DecoderLayer(*widths) for _ in range(decoder_layers)])
        self.reference_points = nn.Linear(dim, 2)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier everywhere but in the deformable attentions, which begin by looking around."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.zeros_(self.reference_points.bias)
        nn.init.normal_(self.level_embeds)

    def encode(self, maps: Sequence[Tensor], padding: Tensor) -> Memory:
        """The neck's maps, refined.

        Args:
            maps: L maps (B, C, H, W).
            padding: (B, height, width) of the batch's pictures, True outside a picture.
        """
        sizes = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps]
        masks = [_nearest(padding, size) for size in sizes]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        positions = [
            self.position(mask).flatten(2).transpose(1, 2) + level
            for mask, level in zip(masks, self.level_embeds, strict=True)
        ]
        position = torch.cat(positions, 1).to(tokens.dtype)
        ratios = torch.stack([valid_ratio(mask) for mask in masks], 1)
        memory = Memory(
            tokens=tokens,
            sizes=sizes,
            shapes=torch.tensor(sizes, device=tokens.device),
            padding=torch.cat([mask.flatten(1) for mask in masks], 1),
            valid_ratios=ratios,
        )
        references = cell_centres(sizes, ratios)
        for layer in self.encoder.layers:
            tokens = layer(tokens, position, references, memory)
        return replace(memory, tokens=tokens)

    def decode(self, memory: Memory, embedding: Tensor, reg_branches: nn.ModuleList) -> Located:
        """Locates things.

        Args:
            memory: the encoder's.
            embedding: (Q, 2 C) of the queries: position, then content.
            reg_branches: C to 4 for each layer; a box is the branch's value added to the box before it, in
                logits.
        """
        batch = len(memory.tokens)
        position, query = embedding.repeat(batch, 1, 1).chunk(2, -1)
        reference = self.reference_points(position).sigmoid()
        queries, boxes = [], []
        for layer, branch in zip(self.decoder.layers, reg_branches, strict=True):
            ratios = memory.valid_ratios[:, None].repeat(1, 1, 1, reference.shape[-1] // 2)
            query = layer(query, position, reference[:, :, None] * ratios, memory)
            box = refine(branch(query), reference)
            queries.append(query)
            boxes.append(box)
            reference = box.detach()
        return Located(queries, boxes)


def refine(change: Tensor, reference: Tensor) -> Tensor:
    """Boxes (…, 4): `reference`, centres (…, 2) or boxes (…, 4) in 0..1, changed in logits."""
    before = inverse_sigmoid(reference, eps=1e-5)
    if reference.shape[-1] == 2:
        before = F.pad(before, (0, 2))
    return (change + before).sigmoid()


def cell_centres(sizes: Sequence[Size], valid_ratios: Tensor) -> Tensor:
    """(B, S, L, 2): where each token looks in each level, x and y in 0..1 of the padded level."""
    centres = []
    for level, (height, width) in enumerate(sizes):
        y = torch.arange(height, device=valid_ratios.device, dtype=valid_ratios.dtype) + 0.5
        x = torch.arange(width, device=valid_ratios.device, dtype=valid_ratios.dtype) + 0.5
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        size = valid_ratios.new_tensor([width, height])
        centres.append(grid / (valid_ratios[:, None, level] * size))
    return torch.cat(centres, 1)[:, :, None] * valid_ratios[:, None]


def valid_ratio(padding: Tensor) -> Tensor:
    """(B, H, W), True outside the picture, to (B, 2): un-padded share of the width and of the height."""
    inside = (~padding).float()
    return torch.stack([inside[:, 0].mean(1), inside[:, :, 0].mean(1)], -1)


def _nearest(padding: Tensor, size: Size) -> Tensor:
    return F.interpolate(padding[None].float(), size=size)[0].bool()


def _deformable(dim: int, num_heads: int, num_levels: int, dropout: float) -> MultiScaleDeformableAttention:
    return MultiScaleDeformableAttention(dim, num_heads, num_levels, dropout=dropout, batch_first=True)


def _ffn(dim: int, ffn_dim: int, dropout: float) -> FFN:
    act = {"type": "ReLU", "inplace": True}
    return FFN(dim, ffn_dim, act_cfg=act, ffn_drop=dropout)


def _dropout(rate: float) -> dict[str, object]:
    return {"type": "Dropout", "drop_prob": rate}
