"""The mask decoder: Segment Anything's two-way transformer, and masks refined by the backbone's fine maps.

Letters: N prompts of one image, K tokens, C width, (h, w) the image embedding. The image is a sequence of
h * w places that is updated too.

What a naive reading gets wrong: the positions that are added to the tokens are the tokens themselves as they
enter; the first layer's self-attention has neither positions nor a residual; LayerNorms of the transformer
have an epsilon of 1e-5, those of maps 1e-6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.layer_norm import LayerNorm2d

MASK_TOKENS = 4  # as in Segment Anything's files; the first alone is used
HIDDEN = 2048
HEADS = 8


class CrossAttention(nn.Module):
    """Multi-head attention with projections of its own for queries, keys and values.

    Args:
        dim: width C.
        inner_dim: width inside.
    """

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (N, L, C), keys and values (N, M, C) to (N, L, C)."""
        projected = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        q, k, v = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in projected)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TokenMlp(nn.Module):
    """Linear `lin1`, ReLU, linear `lin2`."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        return self.lin2(self.lin1(x).relu())


class TwoWayLayer(nn.Module):
    """Tokens attend to themselves and to the image; the image attends to the tokens. All norms come after.

    Args:
        dim: width C.
        first: the self-attention sees no positions and replaces the tokens.
    """

    def __init__(self, dim: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = CrossAttention(dim, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TokenMlp(dim, HIDDEN)
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = CrossAttention(dim, dim // 2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, K, C) and image (N, h * w, C), with their positions, to both anew."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens)
        )
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two layers, and a last look of the tokens at the image."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(dim, first=index == 0) for index in range(2))
        self.final_attn_token_to_image = CrossAttention(dim, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, image: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, K, C), image (N, h * w, C) and its positions (1, h * w, C) to both anew."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        seen = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + seen), image


class Perceptron(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, out_dim)])

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, out_dim)."""
        return self.layers[2](self.layers[1](self.layers[0](x).relu()).relu())


class SAMDecoder(nn.Module):
    """The parts of Segment Anything's decoder that are kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList([Perceptron(dim, dim // 8)])
        self.iou_prediction_head = Perceptron(dim, MASK_TOKENS)

    def forward(
        self, embedding: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The upscaled embedding (N, C/8, 4h, 4w), each prompt's weights on it (N, C/8), and IoUs (N, 1)."""
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight[:1]))
        tokens = torch.cat((own.expand(len(sparse), -1, -1), sparse.to(own.dtype)), 1)
        image = embedding + dense
        places = image_pe.flatten(2).transpose(1, 2)
        tokens, sequence = self.transformer(tokens, image.flatten(2).transpose(1, 2), places)
        upscaled = self.output_upscaling(sequence.transpose(1, 2).unflatten(2, image.shape[2:]))
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])
        return upscaled, weights, self.iou_prediction_head(tokens[:, 0])[:, :1]


def _refining(first: nn.Module, dim: int) -> nn.Sequential:
    """A convolution to C/4 channels, norm, GELU, and a 3x3 convolution to C/8."""
    return nn.Sequential(first, LayerNorm2d(dim // 4), nn.GELU(), nn.Conv2d(dim // 4, dim // 8, 3, padding=1))


class MaskDecoder(nn.Module):
    """Image embedding, prompts and fine maps to masks of stride 4.

    Args:
        dim: width C of embedding and prompts; a multiple of 16.
        fine_channels: channels of the backbone's maps of strides 4 and 8.
    """

    def __init__(self, dim: int = 256, *, fine_channels: tuple[int, int] = (64, 128)) -> None:
        super().__init__()
        self.mask_decoder = SAMDecoder(dim)
        self.hr_feat_proj = _refining(nn.Conv2d(fine_channels[0], dim // 4, 3, padding=1), dim)
        self.mr_feat_proj = _refining(nn.ConvTranspose2d(fine_channels[1], dim // 4, 2, stride=2), dim)
        self.mix_feat_proj = _refining(nn.Conv2d(3 * (dim // 8), dim // 4, 3, padding=1), dim)

    def forward(
        self,
        embedding: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        fine: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Answers the N prompts of one image.

        Args:
            embedding: (1, C, h, w).
            image_pe: places of the embedding's cells, (1, C, h, w).
            sparse: tokens of points and boxes (N, K, C).
            dense: what masks say (N, C, h, w).
            fine: the backbone's maps of stride 4, (1, D, 4h, 4w), and 8, (1, E, 2h, 2w).

        Returns:
            Logits (N, 1, 4h, 4w) and predicted IoUs (N, 1).
        """
        upscaled, weights, iou = self.mask_decoder(embedding, image_pe, sparse, dense)
        stride4 = self.hr_feat_proj(fine[0]).expand_as(upscaled)
        stride8 = self.mr_feat_proj(fine[1]).expand_as(upscaled)
        refined = upscaled + self.mix_feat_proj(torch.cat((upscaled, stride8, stride4), 1))
        return torch.einsum("nc,nchw->nhw", weights, refined)[:, None], iou
