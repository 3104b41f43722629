"""The prompt encoder of Segment Anything (arXiv 2304.02643): points, boxes and masks to what a decoder reads.

Coordinates are (x, y) in pixels of the padded image; half a pixel is added, so that a place is the middle of
its pixel. A place becomes the sines and cosines of random frequencies, which are no parameters but belong to
the weights: without the very matrix nothing fits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.segmentation.promptable.prompts import NEGATIVE, PADDING, POSITIVE, Prompts

POINT_KINDS = 4  # negative, positive, top left and bottom right of a box


class RandomFrequencies(nn.Module):
    """Places in [0, 1] to sines and cosines of random frequencies; `features` of each."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, places: Tensor) -> Tensor:
        """(…, 2) as (x, y) to (…, 2 * features)."""
        x, y = (2 * places - 1).unbind(-1)
        by_x, by_y = self.positional_encoding_gaussian_matrix
        # no matrix product: autocast would round these large angles to bfloat16
        angle = 2 * math.pi * (x[..., None] * by_x + y[..., None] * by_y)
        return torch.cat((angle.sin(), angle.cos()), -1)


class PromptEncoder(nn.Module):
    """Prompts to sparse tokens and a dense map, each of width C.

    Args:
        embed_dim: C.
        image_size: side of the padded image, in pixels.
        embedding_size: side of the image embedding.
    """

    def __init__(self, embed_dim: int = 256, *, image_size: int, embedding_size: int) -> None:
        super().__init__()
        self.image_size, self.embedding_size = image_size, embedding_size
        self.pe_layer = RandomFrequencies(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(POINT_KINDS))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, embed_dim, 1),
        )

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """N prompts to tokens (N, K, C), points before boxes, and a map (N, C, h, w)."""
        sparse = []
        if prompts.points is not None and prompts.labels is not None:
            sparse.append(self.embed_points(prompts.points, prompts.labels, padded=prompts.boxes is None))
        if prompts.boxes is not None:
            sparse.append(self.embed_boxes(prompts.boxes))
        if not sparse:
            sparse.append(
                self.no_mask_embed.weight.new_zeros(len(prompts), 0, self.no_mask_embed.embedding_dim)
            )
        return torch.cat(sparse, 1), self.embed_masks(prompts.masks, len(prompts))

    def embed_points(self, points: Tensor, labels: Tensor, *, padded: bool) -> Tensor:
        """(N, P, 2) and (N, P) to (N, P, C); `padded` appends a point that is none, (N, P + 1, C)."""
        if padded:
            points = torch.cat((points, points.new_zeros(len(points), 1, 2)), 1)
            labels = torch.cat((labels, labels.new_full((len(labels), 1), PADDING)), 1)
        negative, positive = self._kinds()[NEGATIVE], self._kinds()[POSITIVE]
        kind = labels[..., None]
        embedded = self._places(points) + torch.where(kind == POSITIVE, positive, negative)
        return torch.where(kind == PADDING, self.not_a_point_embed.weight, embedded)

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """(N, 4) to the two corners (N, 2, C)."""
        return self._places(boxes.unflatten(1, (2, 2))) + self._kinds()[2:]

    def embed_masks(self, masks: Tensor | None, count: int) -> Tensor:
        """(count, 1, 4h, 4w), or None for no mask, to (count, C, h, w)."""
        if masks is not None:
            return self.mask_downscaling(masks)
        size = self.embedding_size
        return self.no_mask_embed.weight[:, :, None, None].expand(count, -1, size, size)

    def dense_pe(self) -> Tensor:
        """Where the cells of the image embedding are, (1, C, h, w)."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        middle = (torch.arange(self.embedding_size, device=matrix.device) + 0.5) / self.embedding_size
        rows, columns = torch.meshgrid(middle, middle, indexing="ij")
        return self.pe_layer(torch.stack((columns, rows), -1)).permute(2, 0, 1)[None]

    def _kinds(self) -> Tensor:
        """What is added for each kind of point, (4, C)."""
        return torch.cat([embedding.get_parameter("weight") for embedding in self.point_embeddings])

    def _places(self, pixels: Tensor) -> Tensor:
        return self.pe_layer((pixels.float() + 0.5) / self.image_size)
