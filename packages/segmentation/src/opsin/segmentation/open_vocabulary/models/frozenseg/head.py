"""The trained part of FrozenSeg: pixel decoder and transformer decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.segmentation.open_vocabulary.models.frozenseg.pixel_decoder import GROUPS, PixelDecoder
from opsin.segmentation.open_vocabulary.models.frozenseg.text_classifier import TextClassifier
from opsin.segmentation.open_vocabulary.models.frozenseg.transformer_decoder import (
    Prediction,
    TransformerDecoder,
)


class FrozenSegHead(nn.Module):
    """Maps of a frozen CLIP and a frozen SAM to classes and masks.

    Args:
        in_channels: of CLIP's res2, res3, res4, res5.
        text_dim: width of the text features.
        dim: channels of everything inside and of the SAM map.
        num_queries: masks that are proposed.
        encoder_depth, encoder_ffn_dim: of the two deformable encoders.
        decoder_depth, decoder_ffn_dim: of the transformer decoder.
        num_heads: heads of every attention.
        published_kernel: compute SAM's encoder as the authors' CUDA kernel does; needed for their weights.

    Raises:
        UserError: if `dim` is no multiple of 32 and of the heads.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        text_dim: int,
        *,
        dim: int = 256,
        num_queries: int = 250,
        encoder_depth: int = 6,
        encoder_ffn_dim: int = 1024,
        decoder_depth: int = 9,
        decoder_ffn_dim: int = 2048,
        num_heads: int = 8,
        published_kernel: bool = False,
    ) -> None:
        super().__init__()
        if dim % GROUPS or dim % num_heads:
            raise UserError(f"head.dim={dim} is no multiple of {GROUPS} and of num_heads={num_heads}")
        self.pixel_decoder = PixelDecoder(
            in_channels,
            dim=dim,
            depth=encoder_depth,
            num_heads=num_heads,
            ffn_dim=encoder_ffn_dim,
            sam_channels=dim,
            published_kernel=published_kernel,
        )
        self.predictor = TransformerDecoder(
            dim=dim,
            depth=decoder_depth,
            num_queries=num_queries,
            num_heads=num_heads,
            ffn_dim=decoder_ffn_dim,
            text_dim=text_dim,
        )

    def forward(self, features: Sequence[Tensor], sam: Tensor, text: TextClassifier) -> list[Prediction]:
        """One prediction more than the decoder has layers, the last one the best.

        Args:
            features: res2 to res5, (B, C_i, H_i, W_i).
            sam: (B, dim, h, w).
            text: the classes.
        """
        mask_features, maps, sam_fpn = self.pixel_decoder(features, sam)
        predictions: list[Prediction] = self.predictor(maps, mask_features, sam, sam_fpn, text)
        return predictions
