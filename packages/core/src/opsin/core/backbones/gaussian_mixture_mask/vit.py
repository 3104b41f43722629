"""The ViT host: one grid of patches, pre-norm blocks, a mask in every attention.

Gaussian mixture mask (arXiv 2309.05375). Image (N, 3, H, W) to patches of an eighth of `img_size`, 8 x 8 of
them at the usual size: 4 pixels at 32, 8 at 64, 32 at 256.

What a naive reading gets wrong: a network with a mask has no class token and takes the mean over its patches;
without a mask it has a class token, and reads that. Tokens are pooled first and normed after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier, resolve_arch
from opsin.core.backbones.gaussian_mixture_mask.attention import MaskedAttention
from opsin.core.backbones.gaussian_mixture_mask.host import PatchSettings
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid
from opsin.core.backbones.gaussian_mixture_mask.names import own_names, without_base
from opsin.core.backbones.gaussian_mixture_mask.plain import (
    EPS,
    PlainBackbone,
    PlainTrunk,
    check_side,
    fit_positions,
    xavier_linears,
)
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.position_table import resize_position_table
from opsin.core.layers.token_block import TokenBlock
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 9, "num_heads": 12, "head_dim": 16, "mlp_ratio": 2.0}
}
PATCHES_A_SIDE = 8
BLOCK_NAMES = (
    (r"^transformer\.layers\.(\d+)\.([01])\.", r"blocks.\1.\2."),
    (r"^(blocks\.\d+)\.0\.norm\.", r"\1.norm1."),
    (r"^(blocks\.\d+)\.1\.norm\.", r"\1.norm2."),
    (r"^(blocks\.\d+)\.0\.fn\.", r"\1.attn."),
    (r"^(blocks\.\d+)\.1\.fn\.", r"\1.mlp."),
)


class ViTTrunk(PlainTrunk):
    """What backbone and classifier share: patches, positions, perhaps a class token, blocks."""

    grid: Grid
    cls_token: nn.Parameter | None

    def build(self, arch: str | Mapping[str, Any], host: PatchSettings, *, blocks: int | None = None) -> int:
        """Makes the parts, of the blocks the first `blocks`; returns the width."""
        settings = resolve_arch("MaskedViT", ARCHS, arch)
        dim, num_heads, self.depth = settings["embed_dim"], settings["num_heads"], settings["depth"]
        patch_size, self.grid = host.patches(PATCHES_A_SIDE)
        side = self.grid[0]
        self.mask = host.mask_settings()
        self.patch_embed = PatchEmbedding(host.in_channels, dim, patch_size, norm=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim)) if host.mask == "none" else None
        self.pos_embed = nn.Parameter(torch.randn(1, self.outside + side * side, dim))
        self.blocks = nn.ModuleList(
            TokenBlock(
                dim,
                MaskedAttention(dim, num_heads, settings["head_dim"], self.mask.make(num_heads, self.grid)),
                mlp_ratio=settings["mlp_ratio"],
                drop_path_rate=host.drop_path_rate,
                eps=EPS,
            )
            for _ in range(self.depth if blocks is None else blocks)
        )
        self.apply(xavier_linears)
        return int(dim)

    @property
    def outside(self) -> int:
        """How many class tokens stand before the patches."""
        return int(self.cls_token is not None)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to tokens (N, class token + h * w, C) after every block, and the grid (h, w)."""
        check_side(x, self.patch_embed.patch_size)
        patches = self.patch_embed(x)
        size = (patches.shape[1], patches.shape[2])
        tokens = patches.flatten(1, 2)
        if self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), tokens), 1)
        tokens = tokens + resize_position_table(self.pos_embed, self.grid, size, before=self.outside)
        for block in self.blocks:
            tokens = self.run(block, tokens, size)
            yield tokens, size

    def authors_tensors(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file under own names, without frozen tables."""
        named = own_names(tensors, BLOCK_NAMES, self.patch_embed.proj.weight.shape[1:])
        return without_base(named, learned=self.mask.kind == "elm")


@MODELS.register_module()
class MaskedViT(ViTTrunk, PlainBackbone):
    """The feature extractor; the authors have none of this host. A class token goes along and is dropped.

    Args:
        arch: 'tiny', or dict(embed_dim=…, depth=…, num_heads=…, head_dim=…, mlp_ratio=…).
        out_indices: blocks that give a map; None is the ends of the four quarters of the depth. Blocks after
            the last are not built.
        fpn: whether maps go to four strides (4, 8, 16 and 32 for patches of 8 or 16); otherwise all have the
            patches'.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.
        host: see `PatchSettings`.

    Raises:
        UserError: for an unknown arch or mask, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] | None = None,
        fpn: bool = True,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        super().__init__(
            resolve_arch("MaskedViT", ARCHS, arch)["depth"],
            out_indices=out_indices,
            fpn=fpn,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        dim = self.build(arch, PatchSettings.of(host), blocks=self.out_indices[-1] + 1)
        self.add_levels(dim, self.patch_embed.patch_size)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone; positions are resized."""
        return self.of_classifier(self.authors_tensors(tensors))


@MODELS.register_module()
class MaskedViTClassifier(ViTTrunk, Classifier):
    """The published classifier: blocks, mean over patches (or the class token), norm, linear head.

    Args:
        arch, host: as for `MaskedViT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch or mask.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 10,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.num_features = self.build(arch, PatchSettings.of(host))
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed pooled vector (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens.mean(1) if self.cls_token is None else tokens[:, 0])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; positions of another image size are resized."""
        return fit_positions(self.state_dict(), self.authors_tensors(backbone_of(tensors, "head.")))
