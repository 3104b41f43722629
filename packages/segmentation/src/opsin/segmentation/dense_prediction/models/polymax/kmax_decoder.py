"""kMaX-DeepLab's k-means transformer decoder: cluster centres gather the pixels that are nearest to them.

Letters: B images, K centres, C = 256 channels.

What a naive reading misses: the arg-max runs over centres, for every pixel, and carries no gradient; a
centre gains the plain *sum* of its pixels' values; self-attention sees the centres as they were before that;
there is no 1/sqrt(d) anywhere, batch norm on the logits takes its place; the last predictor has no GELU
before it; auxiliary masks are aligned at the corners if the *height* of the finest map is odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.segmentation.dense_prediction.models.polymax.layers import ConvBN, batch_norm1d, batch_norm2d

CENTRE = 256  # channels of a centre
KEYS = 128
NUM_HEADS = 8
MASK = 128  # channels in which pixels and centres are compared
FFN = 2048


@dataclass(frozen=True)
class Clusters:
    """What one predictor says.

    Args:
        mask_logits: (B, K, H, W), how much each pixel belongs to each centre.
        values: (B, K, D), the centres' own values.
        pixels: (B, 128, H, W), the pixels' features, of length 1.
    """

    mask_logits: Tensor
    values: Tensor
    pixels: Tensor

    def resized(self, size: Sequence[int]) -> Clusters:
        """The same with masks and pixels of another size."""
        aligned = size[0] % 2 == 1
        masks, pixels = (
            F.interpolate(x, tuple(size), mode="bilinear", align_corners=aligned)
            for x in (self.mask_logits, self.pixels)
        )
        return Clusters(masks, self.values, pixels)


class Predictor(nn.Module):
    """Masks from comparing pixels with centres, and the centres' values.

    Args:
        channels: of the pixels.
        values: D.
        void_bias: added to the last value: kMaX begins with most centres empty; 0 where there is no void.
    """

    def __init__(self, channels: int, values: int, void_bias: float = 0.0) -> None:
        super().__init__()
        self.void_bias = void_bias
        self._pixel_space_head_conv0bnact = ConvBN(channels, channels, 5, groups=channels, act=True)
        self._pixel_space_head_conv1bnact = ConvBN(channels, CENTRE, act=True)
        self._pixel_space_head_last_convbn = ConvBN(CENTRE, MASK, bias=True, std=0.01)
        self._transformer_mask_head = ConvBN(CENTRE, MASK, flat=True)
        self._transformer_class_head = ConvBN(CENTRE, values, flat=True, bias=True, norm=False, std=0.01)
        self._pixel_space_mask_batch_norm = batch_norm2d(1, scale=0.1)

    def forward(self, for_masks: Tensor, for_values: Tensor, pixels: Tensor) -> Clusters:
        """Centres (B, C, K), as seen for masks and for values, and pixels (B, channels, H, W)."""
        space = self._pixel_space_head_conv1bnact(self._pixel_space_head_conv0bnact(pixels))
        space = F.normalize(self._pixel_space_head_last_convbn(space), dim=1)
        kernels = self._transformer_mask_head(for_masks)
        logits = torch.einsum("bchw,bck->bkhw", space, kernels)
        logits = self._pixel_space_mask_batch_norm(logits.flatten(1, 2)[:, None])[:, 0].unflatten(
            1, logits.shape[1:3]
        )
        values = self._transformer_class_head(for_values).transpose(1, 2)
        if self.void_bias:
            values = values + F.pad(values.new_full((1,), self.void_bias), (values.shape[-1] - 1, 0))
        return Clusters(logits, values, space)


class CentreAttention(nn.Module):
    """Self-attention of the centres, its logits normalised by a batch norm instead of 1/sqrt(d)."""

    def __init__(self) -> None:
        super().__init__()
        self._batch_norm_similarity = batch_norm2d(NUM_HEADS)
        self._batch_norm_retrieved_value = batch_norm1d(CENTRE)

    def forward(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values (B, 128 + 128 + C, K) to (B, C, K)."""
        q, k, v = (x.unflatten(1, (NUM_HEADS, -1)) for x in qkv.split([KEYS, KEYS, CENTRE], 1))
        weights = self._batch_norm_similarity(torch.einsum("bhdi,bhdj->bhij", q, k)).softmax(-1)
        retrieved = torch.einsum("bhij,bhdj->bhdi", weights, v).flatten(1, 2)
        return F.gelu(self._batch_norm_retrieved_value(retrieved))


def cluster_sums(values: Tensor, mask_logits: Tensor) -> Tensor:
    """(B, C, K): for each centre the sum of the values of the pixels that belong most to it.

    Args:
        values: (B, C, H, W).
        mask_logits: (B, K, H, W); they get no gradient.
    """
    nearest = mask_logits.detach().flatten(2).argmax(1)
    chosen = F.one_hot(nearest, mask_logits.shape[1]).to(values.dtype)  # (B, H W, K)
    return values.flatten(2) @ chosen


class KMeansLayer(nn.Module):
    """One step of k-means, self-attention and FFN over the centres.

    Args:
        channels: of the pixels.
        values: D of the layer's own predictor.
        void_bias: see `Predictor`.
    """

    def __init__(self, channels: int, values: int, void_bias: float) -> None:
        super().__init__()
        self._query_conv1_bn_act = ConvBN(CENTRE, CENTRE, flat=True, act=True)
        self._pixel_conv1_bn_act = ConvBN(channels, CENTRE, act=True)
        self._query_qkv_conv_bn = ConvBN(CENTRE, 2 * KEYS + CENTRE, flat=True, std=CENTRE**-0.5)
        self._pixel_v_conv_bn = ConvBN(CENTRE, CENTRE, std=CENTRE**-0.5)
        self._query_self_attention = CentreAttention()
        self._query_conv3_bn = ConvBN(CENTRE, CENTRE, flat=True, scale=0.0)
        self._query_ffn_conv1_bn_act = ConvBN(CENTRE, FFN, flat=True, act=True)
        self._query_ffn_conv2_bn = ConvBN(FFN, CENTRE, flat=True, scale=0.0)
        self._predcitor = Predictor(CENTRE, values, void_bias)  # the spelling of published checkpoints
        self._kmeans_query_batch_norm_retrieved_value = batch_norm1d(CENTRE)
        self._kmeans_query_conv3_bn = ConvBN(CENTRE, CENTRE, flat=True, scale=0.0)

    def forward(self, pixels: Tensor, centres: Tensor) -> tuple[Tensor, Clusters]:
        """Pixels (B, channels, H, W) and centres (B, C, K) to the new centres and what they predict."""
        pixel_space = self._pixel_conv1_bn_act(F.gelu(pixels))
        centre_space = self._query_conv1_bn_act(centres)
        values = self._pixel_v_conv_bn(pixel_space)
        clusters = self._predcitor(centre_space, centre_space, pixel_space)
        gathered = cluster_sums(values, clusters.mask_logits)
        gathered = self._kmeans_query_batch_norm_retrieved_value(gathered)
        centres = centres + self._kmeans_query_conv3_bn(gathered)
        attended = self._query_self_attention(self._query_qkv_conv_bn(centre_space))
        centres = F.gelu(centres + self._query_conv3_bn(attended))
        centres = F.gelu(centres + self._query_ffn_conv2_bn(self._query_ffn_conv1_bn_act(centres)))
        return centres, clusters


class KMaxDecoder(nn.Module):
    """The centres' way through the pixel decoder's maps, and what they predict at last.

    Args:
        in_channels: of the maps of strides 32, 16, 8, 4.
        values: D.
        num_centers: K.
        layers: of each of the three coarser maps.
        void_classes: number of classes besides the void, for kMaX's own void; None where there is none.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        values: int,
        num_centers: int = 128,
        layers: Sequence[int] = (2, 2, 2),
        void_classes: int | None = None,
    ) -> None:
        super().__init__()
        void_bias = math.log(void_classes * 0.9 / 0.1) if void_classes else 0.0
        *coarse, finest = in_channels
        self.map_of_layer = [i for i, count in enumerate(layers) for _ in range(count)]
        self._kmax_transformer_layers = nn.ModuleList(
            KMeansLayer(coarse[i], values, void_bias) for i in self.map_of_layer
        )
        self._cluster_centers = nn.Embedding(CENTRE, num_centers)
        nn.init.trunc_normal_(self._cluster_centers.weight, std=1.0)
        self._class_embedding_projection = ConvBN(CENTRE, CENTRE, flat=True, act=True)
        self._mask_embedding_projection = ConvBN(CENTRE, CENTRE, flat=True, act=True)
        self._predcitor = Predictor(finest, values, void_bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Clusters, list[Clusters], Tensor]:
        """Decodes.

        Args:
            maps: of strides 32, 16, 8, 4.

        Returns:
            What is predicted on the finest map, what each layer predicted (on its size), and the final
            centres (B, C, K).
        """
        centres = self._cluster_centers.weight.repeat(len(maps[0]), 1, 1)
        auxiliary = []
        for layer, index in zip(self._kmax_transformer_layers, self.map_of_layer, strict=True):
            centres, clusters = layer(maps[index], centres)
            auxiliary.append(clusters)
        final = self._predcitor(
            self._mask_embedding_projection(centres), self._class_embedding_projection(centres), maps[-1]
        )
        return final, auxiliary, centres
