"""The whole network: Wiener candidates to one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import Tensors
from opsin.registry import MODELS
from opsin.restoration.metalens.models.acformer.block import STAF, BlockSettings
from opsin.restoration.metalens.models.acformer.filter_attention import FilterAttention
from opsin.restoration.models.tiling import reflected_places


class PatchEmbedding(nn.Module):
    """A 3x3 convolution; parameter `proj`."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim, H, W)."""
        return self.proj(x)


class Resample(nn.Module):
    """A 3x3 convolution and a pixel (un)shuffle; parameter `body.0`."""

    def __init__(self, dim: int, out_channels: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, out_channels, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to half the side and twice the channels, or the other way round."""
        return self.body(x)


def down(dim: int) -> Resample:
    """Half the side, twice the channels."""
    return Resample(dim, dim // 2, nn.PixelUnshuffle(2))


def up(dim: int) -> Resample:
    """Twice the side, half the channels."""
    return Resample(dim, 2 * dim, nn.PixelShuffle(2))


@MODELS.register_module()
class ACFormer(BaseModule):
    """A U-Net of STAF blocks on the candidates of a Wiener bank.

    Args:
        filters: candidates M.
        out_channels: channels of the picture.
        dim: channels at full size; they double with each halving.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the decoder, at full size.
        channel_heads: heads of channel attention of each level.
        spatial_heads: heads of spatial attention of each level.
        overlap_ratio: how much larger the windows of keys are, of each level.
        query_kernels: kernels of the high pass of queries in every second block of latent, decoder 3, 2 and
            1, and refinement; 0: none.
        filter_attention: width, heads and window of the attention over filters; None: without, as in the
            first version of the paper.
        window_size: see `BlockSettings`.
        spatial_dim_head: see `BlockSettings`.
        ffn_expansion_factor: see `BlockSettings`.
        bias: see `BlockSettings`.
        norm: see `BlockSettings`.
        init_cfg: mmengine's, for weights to begin with.
    """

    def __init__(
        self,
        filters: int = 13,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (2, 4, 4, 4),
        num_refinement_blocks: int = 4,
        channel_heads: Sequence[int] = (1, 2, 4, 8),
        spatial_heads: Sequence[int] = (1, 2, 4, 8),
        overlap_ratio: Sequence[float] = (0.5, 0.5, 0.5, 0.5),
        query_kernels: Sequence[int] = (15, 11, 7, 3, 3),
        filter_attention: tuple[int, int, int] | None = (32, 2, 8),
        window_size: int = 8,
        spatial_dim_head: int = 16,
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        norm: Literal["WithBias", "BiasFree"] = "WithBias",
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.filters = filters
        self.multiple = 8 * window_size

        def level(index: int, width: int, count: int, kernel: int, per_pixel: bool) -> nn.Sequential:
            """Blocks of level `index` (from 0); every second one has high-pass queries."""
            settings = BlockSettings(
                window_size, overlap_ratio[index], spatial_dim_head, ffn_expansion_factor, bias, norm
            )
            return nn.Sequential(
                *(
                    STAF(
                        width,
                        channel_heads[index],
                        spatial_heads[index],
                        per_pixel=per_pixel,
                        query_kernel=kernel if block % 2 else 0,
                        settings=settings,
                    )
                    for block in range(count)
                )
            )

        blocks, kernels = num_blocks, query_kernels
        self.ca = FilterAttention(filters, *filter_attention) if filter_attention else None
        self.patch_embed = PatchEmbedding(3 * filters, dim)
        self.encoder_level1 = level(0, dim, blocks[0], 0, False)
        self.down1_2 = down(dim)
        self.encoder_level2 = level(1, 2 * dim, blocks[1], 0, False)
        self.down2_3 = down(2 * dim)
        self.encoder_level3 = level(2, 4 * dim, blocks[2], 0, False)
        self.down3_4 = down(4 * dim)
        self.latent = level(3, 8 * dim, blocks[3], kernels[0], False)
        self.up4_3 = up(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(2, 4 * dim, blocks[2], kernels[1], True)
        self.up3_2 = up(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(1, 2 * dim, blocks[1], kernels[2], True)
        self.up2_1 = up(2 * dim)
        self.decoder_level1 = level(0, 2 * dim, blocks[0], kernels[3], True)
        self.refinement = level(0, 2 * dim, num_refinement_blocks, kernels[4], True)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, candidates: Tensor) -> Tensor:
        """Candidates (B, M, 3, H, W) in [0, 1] to (B, out_channels, H, W), not clamped.

        Sides that are no multiples of 64 are extended to the right and below by reflection, and cropped
        again.

        Raises:
            UserError: if the number of candidates is not the network's.
        """
        if candidates.ndim != 5 or candidates.shape[1] != self.filters:
            raise UserError(
                f"the network takes {self.filters} candidates (B, {self.filters}, 3, H, W), "
                f"and got {tuple(candidates.shape)}"
            )
        height, width = candidates.shape[-2:]
        x = self.extended(candidates)
        refined = self.refined_filters(x)
        restored = self.restored(refined) + x[:, self.filters // 2]
        return restored[..., :height, :width]

    def extended(self, candidates: Tensor) -> Tensor:
        """Candidates with sides that are multiples of 64."""
        for axis in (-2, -1):
            size = candidates.shape[axis]
            places = reflected_places(size, size + -size % self.multiple)
            if len(places) > size:
                index = torch.from_numpy(places).to(candidates.device)
                candidates = candidates.index_select(candidates.ndim + axis, index)
        return candidates

    def refined_filters(self, candidates: Tensor) -> Tensor:
        """Candidates (B, M, 3, H, W) to (B, 3·M, H, W), each refined by what the middle one asks of it."""
        return candidates.flatten(1, 2) if self.ca is None else self.ca(candidates)

    def restored(self, x: Tensor) -> Tensor:
        """(B, 3·M, H, W) to what is added to the middle candidate."""
        level1 = self.encoder_level1(self.patch_embed(x))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        y = self.latent(self.down3_4(level3))
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat((self.up4_3(y), level3), dim=1)))
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat((self.up3_2(y), level2), dim=1)))
        y = self.decoder_level1(torch.cat((self.up2_1(y), level1), dim=1))
        return self.output(self.refinement(y))

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """Published names to ours: tables of relative positions are named as in HaloNet."""
        return {
            re.sub(r"rel_pos_emb\.rel_(height|width)", r"rel_pos_emb.\1_rel", n): t
            for n, t in tensors.items()
        }

    @staticmethod
    def to_published(tensors: Tensors) -> Tensors:
        """The way back."""
        return {
            re.sub(r"rel_pos_emb\.(height|width)_rel", r"rel_pos_emb.rel_\1", n): t
            for n, t in tensors.items()
        }


VARIANTS = {"acformer": dict(filters=13, dim=48)}
