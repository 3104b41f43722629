"""FrozenSeg's pixel decoder: a deformable encoder over the CLIP maps, and a second one over the SAM map.

The encoders are Deformable DETR's (arXiv 2010.04159), post-norm. Level embeddings and sine positions enter
through the queries only; values are the bare maps.

SAM's encoder has weights for three levels but works on one map, so each head has 3 x 4 points there.
`SingleMapAttention` takes all twelve on that map. The authors' CUDA kernel computed something else, which
their weights were trained with: `PublishedSingleMapAttention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import SinePositionalEncoding
from torch import Tensor, nn

from opsin.core.ops.ms_deform_attn import MultiScaleDeformableAttention, ms_deform_attn
from opsin.segmentation.open_vocabulary.models.mask_pooling import resize

LEVELS = 3  # res5, res4, res3
POINTS = 4
GROUPS = 32  # of group norm


class SingleMapAttention(MultiScaleDeformableAttention):
    """Deformable attention with weights for several levels, whose points all lie on one map.

    Args:
        embed_dims: channels of queries and values.
        num_heads: heads.
        num_levels: levels that the weights are for.
        num_points: points a level.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, num_levels: int = LEVELS, num_points: int = POINTS
    ) -> None:
        super().__init__(embed_dims, num_heads, num_levels, num_points, dropout=0.0, batch_first=True)
        self.points_read = num_points
        self.grid = (num_heads, 1, num_levels * num_points)


class PublishedSingleMapAttention(SingleMapAttention):
    """The same weights as the authors' kernel reads them.

    Places and weights of row s (image, query and head, counted through) lie in a buffer for 3 levels. The
    kernel is told of one level and takes entries 4 s … 4 s + 3: those of row s // 3, level s % 3, after a
    softmax over all twelve. So a query reads what another one predicted, and in a batch another image's.
    """

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        reference_points: Tensor,
        shapes: Tensor,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As `MultiScaleDeformableAttention.forward`, batch first, without padding."""
        asked = query if query_pos is None else query + query_pos
        batch, queries, _ = asked.shape
        heads = self.grid[0]
        offsets = self.sampling_offsets(asked).view(batch, queries, *self.grid, 2)
        weight = self.attention_weights(asked).view(batch, queries, heads, -1).softmax(-1)
        places = self._places(offsets, reference_points, shapes)
        read = batch * queries * heads * self.points_read
        out = ms_deform_attn(
            self.value_proj(value).unflatten(-1, (heads, -1)),
            shapes,
            places.reshape(-1, 2)[:read].view(batch, queries, heads, 1, self.points_read, 2),
            weight.reshape(-1)[:read].view(batch, queries, heads, 1, self.points_read),
        )
        attended: Tensor = self.output_proj(out) + query
        return attended


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward network, each followed by its norm."""

    def __init__(self, attention: nn.Module, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = attention
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, pos: Tensor, references: Tensor, shapes: Tensor) -> Tensor:
        """(B, S, C) to the same shape."""
        x = self.norm1(self.self_attn(x, x, references, shapes, query_pos=pos))
        normed: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return normed


class DeformableEncoder(nn.Module):
    """A few layers over the concatenated maps of a pyramid.

    Args:
        dim: channels C.
        depth: layers.
        ffn_dim: width of the feed-forward networks.
        attention: makes a layer's attention.
    """

    def __init__(self, dim: int, depth: int, ffn_dim: int, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(LEVELS, dim))
        layers = [DeformableEncoderLayer(attention(), dim, ffn_dim) for _ in range(depth)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.positions = SinePositionalEncoding(dim // 2, normalize=True)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One to three maps (B, C, H, W) to as many of the same shapes."""
        sizes = [tuple(m.shape[-2:]) for m in maps]
        shapes = torch.tensor(sizes, device=maps[0].device)
        x = torch.cat([tokens(m) for m in maps], 1)
        pos = [tokens(sine(self.positions, m)) + e for m, e in zip(maps, self.level_embed, strict=False)]
        references = torch.cat([pixel_centres(h, w, x.device) for h, w in sizes])
        references = references[None, :, None].expand(len(x), -1, len(maps), -1)
        for layer in self.encoder["layers"].children():
            x = layer(x, torch.cat(pos, 1), references, shapes)
        parts = x.split([h * w for h, w in sizes], 1)
        return [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


class NormedConv(nn.Conv2d):
    """A convolution without bias and the group norm of its output; parameters `weight`, `norm.*`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        normed: Tensor = self.norm(super().forward(x))
        return normed


class PixelDecoder(nn.Module):
    """Mask features and a pyramid from the CLIP maps, and an encoded SAM map.

    Args:
        in_channels: of res2, res3, res4, res5.
        dim: channels C of everything inside; a multiple of 32.
        depth: layers of either encoder.
        num_heads: heads of the deformable attention.
        ffn_dim: width of the encoders' feed-forward networks.
        sam_channels: of the SAM map.
        published_kernel: SAM's encoder as the authors' CUDA kernel computes it (see the module).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        dim: int = 256,
        depth: int = 6,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        sam_channels: int = 256,
        published_kernel: bool = False,
    ) -> None:
        super().__init__()

        def several_maps() -> nn.Module:
            return MultiScaleDeformableAttention(dim, num_heads, LEVELS, POINTS, dropout=0, batch_first=True)

        def one_map() -> nn.Module:
            kind = PublishedSingleMapAttention if published_kernel else SingleMapAttention
            return kind(dim, num_heads)

        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, dim, 1), nn.GroupNorm(GROUPS, dim))
            for channels in reversed(in_channels[1:])
        )
        self.transformer = DeformableEncoder(dim, depth, ffn_dim, several_maps)
        self.adapter_1 = NormedConv(in_channels[0], dim, 1)
        self.layer_1 = NormedConv(dim, dim, 3)
        self.mask_features = nn.Conv2d(dim, dim, 1)
        self.fpn3 = nn.Sequential(
            nn.Conv2d(sam_channels, dim, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, dim), nn.ReLU()
        )
        self.sam_transformer = DeformableEncoder(dim, depth, ffn_dim, one_map)
        self.apply(_init_convolution)

    def forward(self, features: Sequence[Tensor], sam: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """The decoder's inputs.

        Args:
            features: res2, res3, res4, res5: (B, C_i, H_i, W_i) at strides 4 to 32.
            sam: (B, sam_channels, h, w), the neck's output of SAM's image encoder.

        Returns:
            Mask features (B, C, H_2, W_2); the encoded res5, res4, res3 (low to high resolution); the encoded
            SAM map (B, C, ceil(h / 2), ceil(w / 2)).
        """
        res2, *coarse = features
        projected = [project(m) for project, m in zip(self.input_proj, reversed(coarse), strict=True)]
        maps = self.transformer(projected)
        upsampled = resize(maps[-1], res2.shape[-2:])
        fine = F.relu(self.layer_1(self.adapter_1(res2) + upsampled))
        (sam_fpn,) = self.sam_transformer([self.fpn3(sam)])
        return self.mask_features(fine), maps, sam_fpn


def _init_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sine(encoding: SinePositionalEncoding, x: Tensor) -> Tensor:
    """DETR's normalised sine positions (B, C, H, W) of a map without padding, in the map's type."""
    unpadded = x.new_zeros((len(x), *x.shape[-2:]), dtype=torch.bool)
    positions: Tensor = encoding(unpadded).to(x.dtype)
    return positions


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def pixel_centres(height: int, width: int, device: Any) -> Tensor:
    """(H W, 2) x, y in 0..1, row by row."""
    y, x = torch.meshgrid(
        (torch.arange(height, device=device) + 0.5) / height,
        (torch.arange(width, device=device) + 0.5) / width,
        indexing="ij",
    )
    return torch.stack([x, y], -1).flatten(0, 1)
