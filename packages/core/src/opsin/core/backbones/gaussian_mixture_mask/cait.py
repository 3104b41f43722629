"""The CaiT host: blocks of patches, then blocks in which a class token reads these (arXiv 2103.17239).

Gaussian mixture mask (arXiv 2309.05375). Image (N, 3, H, W) to patches of an eighth of `img_size`. Only the
patch blocks have a mask. Heads talk: a learned matrix mixes their logits before the softmax and another their
attention after it.

What a naive reading gets wrong: the mask multiplies the logits before they are mixed; an entry M[h, g] of the
matrices carries old head h into new head g; the class token joins after the patch blocks and has no position;
in the class blocks it reads the patches alone, not itself, and only it is normed: the patches enter keys and
values as they are, and stay so through all of these blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier, resolve_arch
from opsin.core.backbones.gaussian_mixture_mask.host import PatchSettings
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid, MaskSettings
from opsin.core.backbones.gaussian_mixture_mask.names import own_names, without_base
from opsin.core.backbones.gaussian_mixture_mask.plain import (
    EPS,
    PlainBackbone,
    PlainTrunk,
    check_side,
    fit_positions,
    xavier_linears,
)
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.position_table import resize_position_table
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS


def _arch(embed_dim: int) -> dict[str, Any]:
    return {
        "embed_dim": embed_dim,
        "depth": 24,
        "cls_depth": 2,
        "num_heads": 4,
        "head_dim": 64,
        "hidden_dim": 384,
    }


ARCHS: dict[str, dict[str, Any]] = {"tiny": _arch(108), "small": _arch(192)}
PATCHES_A_SIDE = 8
BLOCK_NAMES = (
    (r"^(patch_)?transformer\.layers\.(\d+)\.([01])\.", r"blocks.\2.\3."),
    (r"^cls_transformer\.layers\.(\d+)\.([01])\.", r"cls_blocks.\1.\2."),
    (r"^((cls_)?blocks\.\d+)\.0\.scale$", r"\1.scale1"),
    (r"^((cls_)?blocks\.\d+)\.1\.scale$", r"\1.scale2"),
    (r"^((cls_)?blocks\.\d+)\.0\.fn\.norm\.", r"\1.norm1."),
    (r"^((cls_)?blocks\.\d+)\.1\.fn\.norm\.", r"\1.norm2."),
    (r"^((cls_)?blocks\.\d+)\.0\.fn\.fn\.", r"\1.attn."),
    (r"^((cls_)?blocks\.\d+)\.1\.fn\.fn\.", r"\1.mlp."),
)


def layer_scale_init(number: int) -> float:
    """What the branches of block `number`, counted from 1, are multiplied by at first."""
    return 0.1 if number <= 18 else 1e-5 if number <= 24 else 1e-6


class TalkingHeads(nn.Module):
    """Attention between heads that talk; parameters `q`, `kv`, `mix_heads_pre_attn`, `mix_heads_post_attn`.

    Args:
        dim: width C.
        num_heads: heads.
        head_dim: width of a head.
        mask: called with the map's size, gives what multiplies the logits; None for nothing.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, mask: nn.Module | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.kv = nn.Linear(dim, 2 * num_heads * head_dim, bias=False)
        self.mix_heads_pre_attn = nn.Parameter(torch.randn(num_heads, num_heads))
        self.mix_heads_post_attn = nn.Parameter(torch.randn(num_heads, num_heads))
        self.mask = mask
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, x: Tensor, context: Tensor, size: Grid) -> Tensor:
        """(B, M, C), which reads `context` (B, N, C), the tokens of a map of `size`; to (B, M, C)."""
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        if self.mask is not None:
            logits = logits * self.mask(size)
        attention = mix_heads(
            mix_heads(logits, self.mix_heads_pre_attn).softmax(-1), self.mix_heads_post_attn
        )
        return self.proj((attention @ v).transpose(1, 2).flatten(2))


def mix_heads(x: Tensor, matrix: Tensor) -> Tensor:
    """(B, heads, M, N) to the same shape: new head g is the sum over h of matrix[h, g] times old head h."""
    return (matrix.t() @ x.flatten(2)).view_as(x)


class CaiTBlock(nn.Module):
    """Norm, attention and scale; norm, perceptron and scale; both residual.

    Args:
        dim: width C.
        attn: the attention.
        hidden_dim: hidden width of the perceptron.
        scale_init: what the scales of the channels begin with.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, attn: TalkingHeads, hidden_dim: int, *, scale_init: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = attn
        self.scale1 = nn.Parameter(torch.full((dim,), scale_init))
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, hidden_dim)
        self.scale2 = nn.Parameter(torch.full((dim,), scale_init))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, size: Grid, context: Tensor | None = None) -> Tensor:
        """(B, M, C) to the same shape; `context` (B, N, C) is read as it is, without it x itself, normed."""
        normed = self.norm1(x)
        y = self.attn(normed, normed if context is None else context, size)
        x = x + self.drop_path(y * self.scale1)
        return x + self.drop_path(self.mlp(self.norm2(x)) * self.scale2)


class CaiTTrunk(PlainTrunk):
    """What backbone and classifier share: patches, positions and patch blocks."""

    grid: Grid

    def build(self, settings: Mapping[str, Any], host: PatchSettings, *, blocks: int | None = None) -> None:
        """Makes the parts, of the patch blocks the first `blocks`."""
        dim, self.depth = settings["embed_dim"], settings["depth"]
        patch_size, self.grid = host.patches(PATCHES_A_SIDE)
        side = self.grid[0]
        self.mask = host.mask_settings()
        self.patch_embed = PatchEmbedding(host.in_channels, dim, patch_size, norm=False)
        self.pos_embed = nn.Parameter(torch.randn(1, side * side, dim))
        built = self.depth if blocks is None else blocks
        self.blocks = self.make_blocks(settings, built, self.mask, host.drop_path_rate)

    def make_blocks(
        self, settings: Mapping[str, Any], count: int, mask: MaskSettings, drop_path_rate: float
    ) -> nn.ModuleList:
        """The first `count` blocks of patches or of the class token."""
        dim, num_heads = settings["embed_dim"], settings["num_heads"]
        return nn.ModuleList(
            CaiTBlock(
                dim,
                TalkingHeads(dim, num_heads, settings["head_dim"], mask.make(num_heads, self.grid)),
                settings["hidden_dim"],
                scale_init=layer_scale_init(number),
                drop_path_rate=drop_path_rate,
            )
            for number in range(1, count + 1)
        )

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to tokens (N, h * w, C) after every patch block, and the grid (h, w)."""
        check_side(x, self.patch_embed.patch_size)
        patches = self.patch_embed(x)
        size = (patches.shape[1], patches.shape[2])
        tokens = patches.flatten(1, 2) + resize_position_table(self.pos_embed, self.grid, size)
        for block in self.blocks:
            tokens = self.run(block, tokens, size)
            yield tokens, size

    def authors_tensors(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file under own names, without frozen tables."""
        named = own_names(tensors, BLOCK_NAMES, self.patch_embed.proj.weight.shape[1:])
        kept = without_base(named, learned=self.mask.kind == "elm")
        return {n: t.flatten() if n.endswith((".scale1", ".scale2")) else t for n, t in kept.items()}


@MODELS.register_module()
class MaskedCaiT(CaiTTrunk, PlainBackbone):
    """The feature extractor: patches and patch blocks. The authors have none of this host.

    Args:
        arch: 'tiny', 'small', or a mapping with the same keys as an entry of `ARCHS`.
        out_indices: patch blocks that give a map; None is the ends of the four quarters of the depth. Blocks
            after the last are not built.
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
        settings = resolve_arch("MaskedCaiT", ARCHS, arch)
        super().__init__(
            settings["depth"],
            out_indices=out_indices,
            fpn=fpn,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.build(settings, PatchSettings.of(host), blocks=self.out_indices[-1] + 1)
        self.apply(xavier_linears)
        self.add_levels(settings["embed_dim"], self.patch_embed.patch_size)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone; positions are resized."""
        return self.of_classifier(self.authors_tensors(tensors))

    def unused(self) -> str:
        """The head, the class token and what reads into it, and later blocks."""
        return rf"^cls_|{super().unused()}"


@MODELS.register_module()
class MaskedCaiTClassifier(CaiTTrunk, Classifier):
    """The published classifier: patch blocks, class blocks, norm and linear head on the class token.

    Args:
        arch, host: as for `MaskedCaiT`.
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
        settings, chosen = resolve_arch("MaskedCaiT", ARCHS, arch), PatchSettings.of(host)
        self.num_features = settings["embed_dim"]
        self.build(settings, chosen)
        self.cls_token = nn.Parameter(torch.randn(1, 1, self.num_features))
        cls_depth = settings["cls_depth"]
        self.cls_blocks = self.make_blocks(settings, cls_depth, MaskSettings("none"), chosen.drop_path_rate)
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.apply(xavier_linears)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed class token (N, num_features)."""
        *_, (patches, size) = self.walk(x)
        token = self.cls_token.expand(len(x), -1, -1)
        for block in self.cls_blocks:
            token = self.run(block, token, size, patches)
        return self.norm(token[:, 0])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; positions of another image size are resized."""
        return fit_positions(self.state_dict(), self.authors_tensors(backbone_of(tensors, "head.")))
