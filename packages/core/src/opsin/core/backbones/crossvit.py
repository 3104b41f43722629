"""CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification.

arXiv 2103.14899, ICCV 2021; code IBM/CrossViT, Apache-2.0. Two plain transformers side by side: branch 0 (S)
sees small patches with narrow tokens, branch 1 (L) large patches with wide ones and more blocks. They talk
through their class tokens alone, each of which asks the patch tokens of the other branch, at a cost linear in
their number. Every branch resizes the image for itself. Letters: N images, h * w patches, C channels.

What a naive reading gets wrong: after the exchange the class token is replaced, not added to; a projection is
norm, GELU, linear, in this order; the projected class token is itself a key of the attention that it asks,
and the residual around that attention is taken before the norm; a branch is resized without antialias.

The authors publish classifiers only. `CrossViT`, the dense form, is opsin's own extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.cases import run_module, set_attention_scale
from opsin.core.errors import UserError, unknown
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.plain_pyramid import rescale
from opsin.core.layers.position_table import Grid, resize_position_table, square_grid
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit, place
from opsin.registry import MODELS

EPS = 1e-6
BRANCHES = (0, 1)
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": (96, 192), "depth": ((1, 4, 0),) * 3, "num_heads": (3, 3), "mlp_ratio": (4, 4)},
    "small": {"embed_dim": (192, 384), "depth": ((1, 4, 0),) * 3, "num_heads": (6, 6), "mlp_ratio": (4, 4)},
    "base": {"embed_dim": (384, 768), "depth": ((1, 4, 0),) * 3, "num_heads": (12, 12), "mlp_ratio": (4, 4)},
    "9": {"embed_dim": (128, 256), "depth": ((1, 3, 0),) * 3, "num_heads": (4, 4), "mlp_ratio": (3, 3)},
    "15": {"embed_dim": (192, 384), "depth": ((1, 5, 0),) * 3, "num_heads": (6, 6), "mlp_ratio": (3, 3)},
    "18": {"embed_dim": (224, 448), "depth": ((1, 6, 0),) * 3, "num_heads": (7, 7), "mlp_ratio": (3, 3)},
}
# kernel, stride and padding of the three convolutions that embed patches of a side
CONVOLUTIONS = {12: ((7, 4, 3), (3, 3, 0), (3, 1, 1)), 16: ((7, 4, 3), (3, 2, 1), (3, 2, 1))}
# of a dense map: branch, stride that its map is brought to, and factor on that stride
LEVELS = ((0, 8, 0.5), (0, 8, 1.0), (1, 16, 1.0), (1, 16, 2.0))


@dataclass(frozen=True)
class CrossViTSettings:
    """Sizes and switches; pairs are those of branch S and branch L.

    Args:
        embed_dim: widths of the tokens.
        depth: of every encoder: blocks of S, blocks of L, and cross-attention blocks, of which there is one
            where 0 is given (only the names of its parameters differ from those of 1).
        num_heads: heads of the blocks; cross-attention has those of the branch that it asks.
        mlp_ratio: hidden width of the blocks' perceptrons, as a multiple of the width.
        img_size: side in pixels of the square image that a branch's position table is made for.
        patch_size: sides of the patches.
        multi_conv: whether three convolutions embed the patches (the models with a dagger), else one.
        qkv_bias: whether queries, keys and values have a bias.
        in_channels: channels of the image.
        drop_rate: dropout after the position tables.
        drop_path_rate: rate of the last block; it grows linearly from 0.
    """

    embed_dim: Sequence[int]
    depth: Sequence[Sequence[int]]
    num_heads: Sequence[int]
    mlp_ratio: Sequence[float]
    img_size: Sequence[int] = (240, 224)
    patch_size: Sequence[int] = (12, 16)
    multi_conv: bool = False
    qkv_bias: bool = True
    in_channels: int = 3
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @classmethod
    def of(cls, arch: str | Mapping[str, Any], changes: Mapping[str, Any]) -> CrossViTSettings:
        """The settings of a named arch, or of a mapping of settings, with `changes`.

        Raises:
            UserError: for an unknown arch or setting, a missing one, or patches that the convolutions do not
                embed.
        """
        if isinstance(arch, str):
            if arch not in ARCHS:
                raise unknown("CrossViT arch", arch, ARCHS)
            arch = ARCHS[arch]
        given = {**arch, **changes}
        names = [f.name for f in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("argument of CrossViT", name, names)
        missing = [name for name in ARCHS["tiny"] if name not in given]
        if missing:
            raise UserError(f"CrossViT arch {dict(arch)} lacks {', '.join(missing)}")
        settings = cls(**given)
        settings._check()
        return settings

    def _check(self) -> None:
        for dim, heads in zip(self.embed_dim, self.num_heads, strict=True):
            if dim % heads:
                raise UserError(f"{heads} heads do not divide a width of {dim}", "change num_heads")
        if not self.depth or any(len(numbers) != 3 for numbers in self.depth):
            raise UserError(f"depth {self.depth} of CrossViT", "give three numbers for every encoder")
        if not self.multi_conv:
            return
        for patch, side in zip(self.patch_size, self.img_size, strict=True):
            if patch not in CONVOLUTIONS:
                raise UserError(f"multi_conv embeds patches of 12 or 16 pixels, not of {patch}")
            if side % patch:
                raise UserError(f"img_size {side} is no multiple of the patch size {patch}")

    def grid(self, branch: int, size: tuple[int, int]) -> Grid:
        """Rows and columns of patches in a branch's image of `size` (height, width)."""
        rows, columns = (side // self.patch_size[branch] for side in size)
        return rows, columns

    def own_size(self, branch: int) -> tuple[int, int]:
        """Height and width of the image that a branch is made for."""
        return self.img_size[branch], self.img_size[branch]

    def nearest_size(self, branch: int, size: tuple[int, int]) -> tuple[int, int]:
        """What a branch resizes an image of `size` to, so that whole patches fill it.

        It keeps the ratio of the branches' images: 240 pixels become 240 and 224.
        """
        patch, scale = self.patch_size[branch], self.img_size[branch] / self.img_size[0]
        height, width = (max(1, round(side * scale / patch)) * patch for side in size)
        return height, width

    def drop_path_rates(self) -> list[list[float]]:
        """Rates of every encoder's blocks; a branch with more blocks than rates repeats the last."""
        return drop_path_rates(self.drop_path_rate, [sum(numbers[1:]) for numbers in self.depth])


def _patch_projection(settings: CrossViTSettings, branch: int) -> nn.Module:
    """The convolution, or the three with ReLU between, whose strides multiply to the patch size."""
    dim, patch = settings.embed_dim[branch], settings.patch_size[branch]
    if not settings.multi_conv:
        return nn.Conv2d(settings.in_channels, dim, patch, stride=patch)
    channels = (settings.in_channels, dim // 4, dim // 2, dim)
    first, second, third = (
        nn.Conv2d(channels[i], channels[i + 1], *kernel) for i, kernel in enumerate(CONVOLUTIONS[patch])
    )
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), third)


class PatchEmbed(nn.Module):
    """An image (N, 3, H, W), whole patches, to tokens (N, h * w, C), row by row."""

    def __init__(self, settings: CrossViTSettings, branch: int) -> None:
        super().__init__()
        self.proj = _patch_projection(settings, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, h * w, C)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a perceptron, each with a residual."""

    def __init__(self, settings: CrossViTSettings, branch: int, drop_path_rate: float) -> None:
        super().__init__()
        dim, heads = settings.embed_dim[branch], settings.num_heads[branch]
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads, qkv_bias=settings.qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(settings.mlp_ratio[branch] * dim))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossAttention(nn.Module):
    """Attention of the first token to all, itself included.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale: float | None = None  # of the logits; None is (C / heads) ** -0.5
        self.wq, self.wk, self.wv = (nn.Linear(dim, dim, bias=qkv_bias) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) to (N, 1, C)."""
        q, k, v = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.wq(x[:, :1]), self.wk(x), self.wv(x))
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Pre-norm cross-attention; the residual is that of the first token.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        mlp_ratio: hidden over outer width of the perceptron after it; 0 for none, as in every CrossViT.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool,
        mlp_ratio: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = CrossAttention(dim, num_heads, qkv_bias=qkv_bias)
        self.drop_path = DropPath(drop_path_rate)
        self.has_mlp = mlp_ratio > 0
        if self.has_mlp:
            self.norm2 = nn.LayerNorm(dim, eps=EPS)
            self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) to (N, 1, C)."""
        x = x[:, :1] + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x))) if self.has_mlp else x


class BranchBlocks(nn.Module):
    """The blocks of both branches, without exchange.

    Args:
        settings: sizes.
        depth: blocks of S and of L.
        rates: drop path rates of the blocks.
    """

    def __init__(self, settings: CrossViTSettings, depth: Sequence[int], rates: Sequence[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Block(settings, branch, _rate(rates, i)) for i in range(depth[branch])))
            for branch in BRANCHES
        )

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of S and of L, class token first, to the same shapes."""
        return self.blocks[0](small), self.blocks[1](large)


def _rate(rates: Sequence[float], index: int) -> float:
    return rates[min(index, len(rates) - 1)] if rates else 0.0


class MultiScaleBlock(BranchBlocks):
    """One encoder: the blocks of both branches, then each class token asks the other branch.

    Both directions start from what the blocks gave. `fusion[b]`, which the class token of branch b goes
    through, has the width of the other branch.
    """

    def __init__(self, settings: CrossViTSettings, depth: Sequence[int], rates: Sequence[float]) -> None:
        super().__init__(settings, depth, rates)
        widths = [(settings.embed_dim[branch], settings.embed_dim[1 - branch]) for branch in BRANCHES]
        self.projs = nn.ModuleList(_projection(own, other) for own, other in widths)
        self.fusion = nn.ModuleList(
            _cross_blocks(settings, 1 - branch, depth[2], _rate(rates, len(rates))) for branch in BRANCHES
        )
        self.revert_projs = nn.ModuleList(_projection(other, own) for own, other in widths)

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of S and of L, class token first, to the same shapes."""
        small, large = super().forward(small, large)
        return self._exchange(0, small, large), self._exchange(1, large, small)

    def _exchange(self, branch: int, own: Tensor, other: Tensor) -> Tensor:
        """The tokens `own` of a branch with a class token that has asked those of the other."""
        asking = cat((self.projs[branch](own[:, :1]), other[:, 1:]), 1)
        return cat((self.revert_projs[branch](self.fusion[branch](asking)), own[:, 1:]), 1)


def _projection(dim: int, new_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim, eps=EPS), nn.GELU(), nn.Linear(dim, new_dim))


def _cross_blocks(settings: CrossViTSettings, branch: int, depth: int, rate: float) -> nn.Module:
    """The cross-attention to the tokens of `branch`: one block under the encoder's own name for depth 0."""

    def block() -> CrossBlock:
        dim, heads = settings.embed_dim[branch], settings.num_heads[branch]
        return CrossBlock(dim, heads, qkv_bias=settings.qkv_bias, drop_path_rate=rate)

    return nn.Sequential(*(block() for _ in range(depth))) if depth else block()


class MeanHead(nn.ModuleList):
    """A linear layer for each part of a vector (N, sum of `dims`); the logits are their mean."""

    def __init__(self, dims: Sequence[int], num_classes: int) -> None:
        super().__init__(nn.Linear(dim, num_classes) for dim in dims)
        self.dims = tuple(dims)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """(N, sum of dims) to (N, num_classes)."""
        small, large = (layer(part) for layer, part in zip(self, x.split(self.dims, 1), strict=True))
        return (small + large) / 2


class CrossViTTrunk(Trunk):
    """What the classifier and the backbone share: from the image to the encoders."""

    settings: CrossViTSettings

    def build(self, settings: CrossViTSettings, encoders: Iterable[nn.Module]) -> None:
        """Makes the embeddings of both branches and takes the encoders."""
        self.settings = settings
        grids = [settings.grid(branch, settings.own_size(branch)) for branch in BRANCHES]
        self.patch_embed = nn.ModuleList(PatchEmbed(settings, branch) for branch in BRANCHES)
        self.pos_embed = nn.ParameterList(
            torch.empty(1, 1 + h * w, dim) for (h, w), dim in zip(grids, settings.embed_dim, strict=True)
        )
        self.cls_token = nn.ParameterList(torch.empty(1, 1, dim) for dim in settings.embed_dim)
        self.pos_drop = nn.Dropout(settings.drop_rate)
        self.blocks = nn.ModuleList(encoders)
        for table in (*self.pos_embed, *self.cls_token):
            nn.init.trunc_normal_(table, std=0.02)
        self.apply(init_linear)

    def tokens(self, x: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Image (N, 3, H, W), resized to the branches' `sizes`, to their tokens after the last encoder."""
        small, large = (self._embed(x, branch, size) for branch, size in enumerate(sizes))
        for encoder in self.blocks:
            small, large = self.run(encoder, small, large)
        return small, large

    def _embed(self, x: Tensor, branch: int, size: tuple[int, int]) -> Tensor:
        if x.shape[2:] != size:
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        own = self.settings.grid(branch, self.settings.own_size(branch))
        grid = self.settings.grid(branch, size)
        tokens = cat((self.cls_token[branch].expand(len(x), -1, -1), self.patch_embed[branch](x)), 1)
        return self.pos_drop(tokens + resize_position_table(self.pos_embed[branch], own, grid, before=1))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class tokens and positions; encoder i: i + 1; the rest: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        layers = len(self.blocks) + 2
        if part in ("patch_embed", "pos_embed", "cls_token"):
            return 0, layers
        return (int(rest.split(".")[0]) + 1 if part == "blocks" else layers - 1), layers

    def no_weight_decay(self) -> set[str]:
        """Class tokens and position tables; the authors list them under names that match nothing."""
        return {name for name, _ in self.named_parameters() if name.startswith(("pos_embed.", "cls_token."))}

    def fit_positions(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors or of timm under the authors' names, positions resized to the own grids.

        Raises:
            UserError: if a position table of another size is not that of a square grid.
        """
        tensors = backbone_of(tensors, "head.")
        named = {re.sub(r"^(pos_embed|cls_token)_(\d)$", r"\1.\2", n): t for n, t in tensors.items()}
        for branch in BRANCHES:
            table = named.get(f"pos_embed.{branch}")
            if table is not None and table.shape[1] != self.pos_embed[branch].shape[1]:
                own = self.settings.grid(branch, self.settings.own_size(branch))
                grid = square_grid(table.shape[1] - 1)
                named[f"pos_embed.{branch}"] = resize_position_table(table, grid, own, before=1)
        return named


@MODELS.register_module()
class CrossViT(CrossViTTrunk, Backbone):
    """Dense features from both branches: an extension, which the authors do not have.

    Each branch resizes the image to whole patches in the ratio that it was trained with (240 to 224 pixels),
    and its patch tokens, normed, are a map: S one cell to 12 pixels, L one to about 17. With `fpn` these maps
    are brought to strides 8 and 16 by bilinear interpolation; then S gives strides 4 (by a 2x2 transposed
    convolution) and 8, and L gives 16 and 32 (by 2x2 max pooling). Patch tokens never see the exchange of
    their own encoder, so the last encoder is built without it, and without the blocks of a branch that gives
    no map.

    Args:
        arch: 'tiny', 'small', 'base', '9', '15', '18', or a mapping of `CrossViTSettings`.
        out_indices: with `fpn` which of the strides 4, 8, 16, 32 (0 to 3), without it which branches (0 and
            1) give a map; None is all.
        fpn: whether the maps are brought to strides 4, 8, 16 and 32.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is an encoder.
        settings: see `CrossViTSettings`.

    Raises:
        UserError: for an unknown arch or setting, or impossible `out_indices`.
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
        **settings: Any,
    ) -> None:
        chosen = CrossViTSettings.of(arch, settings)
        maps = len(LEVELS) if fpn else len(BRANCHES)
        super().__init__(
            out_indices=range(maps) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(maps)
        self.fpn = fpn
        self.used = tuple(sorted({LEVELS[i][0] if fpn else i for i in self.out_indices}))
        rates = chosen.drop_path_rates()
        *depths, last = chosen.depth
        encoders: list[nn.Module] = [
            MultiScaleBlock(chosen, depth, rates[i]) for i, depth in enumerate(depths)
        ]
        kept = [last[branch] if branch in self.used else 0 for branch in BRANCHES]
        self.build(chosen, [*encoders, BranchBlocks(chosen, kept, rates[-1])])
        self.norm = nn.ModuleDict({str(b): nn.LayerNorm(chosen.embed_dim[b], eps=EPS) for b in self.used})
        for level in self.out_indices if fpn else ():
            branch, _, factor = LEVELS[level]
            self.add_module(f"fpn{level + 1}", rescale(chosen.embed_dim[branch], factor))
        self.feature_info = tuple(self._info(index) for index in self.out_indices)

    def _info(self, index: int) -> FeatureInfo:
        settings = self.settings
        if self.fpn:
            branch, stride, factor = LEVELS[index]
            return FeatureInfo(settings.embed_dim[branch], round(stride * factor))
        stride = round(settings.patch_size[index] * settings.img_size[0] / settings.img_size[index])
        return FeatureInfo(settings.embed_dim[index], stride)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W), from 32 pixels on a side, to maps as `feature_info` says."""
        maps = self._branch_maps(x)
        if not self.fpn:
            return tuple(maps[branch].contiguous() for branch in self.out_indices)
        for branch, stride in {branch: stride for branch, stride, _ in LEVELS if branch in maps}.items():
            size = [side // stride for side in x.shape[2:]]
            maps[branch] = F.interpolate(maps[branch], size=size, mode="bilinear", align_corners=False)
        return tuple(
            self.get_submodule(f"fpn{level + 1}")(maps[LEVELS[level][0]]) for level in self.out_indices
        )

    def _branch_maps(self, x: Tensor) -> dict[int, Tensor]:
        """The normed patch tokens of the branches in use, as maps (N, C, h, w)."""
        height, width = x.shape[2:]
        sizes = [self.settings.nearest_size(branch, (height, width)) for branch in BRANCHES]
        tokens = self.tokens(x, sizes)
        return {
            branch: self.norm[str(branch)](tokens[branch][:, 1:])
            .transpose(1, 2)
            .unflatten(2, self.settings.grid(branch, sizes[branch]))
            for branch in self.used
        }

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """Patches, class tokens and positions (0), or an encoder (from 1)."""
        if stage == 0:
            return [self.patch_embed, self.pos_embed, self.cls_token]
        return [self.blocks[stage - 1]] if stage <= len(self.blocks) else []

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier of the authors or of timm to those of this backbone.

        The heads and what this backbone does not build are dropped; its own upsampling stays as it is.
        """
        last = len(self.blocks) - 1
        unused = rf"^(head\.|blocks\.{last}\.(projs|fusion|revert_projs)\.)"
        for branch in set(BRANCHES) - set(self.used):
            unused += rf"|^(norm\.{branch}\.|blocks\.{last}\.blocks\.{branch}\.)"
        return fit(self.state_dict(), self.fit_positions(tensors), fresh=r"^fpn\d\.", unused=unused)


@MODELS.register_module()
class CrossViTClassifier(CrossViTTrunk, Classifier):
    """The published classifier: the normed class tokens of both branches, a linear head each, their mean.

    A branch resizes any image to its own square, so pictures that are not square are squashed.

    Args:
        arch: as for `CrossViT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.
        settings: see `CrossViTSettings`.

    Raises:
        UserError: for an unknown arch or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        chosen = CrossViTSettings.of(arch, settings)
        rates = chosen.drop_path_rates()
        self.build(chosen, (MultiScaleBlock(chosen, depth, rates[i]) for i, depth in enumerate(chosen.depth)))
        self.norm = nn.ModuleList(nn.LayerNorm(dim, eps=EPS) for dim in chosen.embed_dim)
        self.num_features = sum(chosen.embed_dim)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces both heads by freshly initialised ones for `num_classes` classes (0: none)."""
        self.num_classes = num_classes
        self.head = MeanHead(self.settings.embed_dim, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the class tokens of S and L, side by side: (N, num_features)."""
        tokens = self.tokens(x, [self.settings.own_size(branch) for branch in BRANCHES])
        return cat([norm(branch[:, 0]) for norm, branch in zip(self.norm, tokens, strict=True)], 1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier of the authors or of timm; positions are resized to the own grids."""
        return self.fit_positions(tensors)


_VARIANTS: dict[str, dict[str, Any]] = {f"crossvit_{arch}": {"arch": arch} for arch in ARCHS}
_VARIANTS |= {f"crossvit_{arch}_dagger": {"arch": arch, "multi_conv": True} for arch in ("9", "15", "18")}
_VARIANTS |= {
    f"crossvit_{arch}_dagger_384": {"arch": arch, "multi_conv": True, "img_size": (408, 384)}
    for arch in ("15", "18")
}
register_models("crossvit", CrossViTClassifier, _VARIANTS, backbone=CrossViT)


# Parity. What the constructor's arguments leave open is read off the published shapes.


def _published_settings(case: Case) -> CrossViTSettings:
    """Our settings for the arguments of the authors' classes, and for what the case's tensors show."""
    given = case.built_with
    factory = re.search(r"crossvit_([a-z0-9]+)(_dagger)?_(224|384)", case.source)
    named: dict[str, Any] = dict(ARCHS[factory[1]]) if factory else {}
    if factory and factory[3] == "384":
        named["img_size"] = (408, 384)
    renamed = {"dim": "embed_dim", "in_chans": "in_channels"}
    known = {f.name for f in fields(CrossViTSettings)}
    settings = {renamed.get(name, name): value for name, value in given.items()}
    settings = {name: value for name, value in settings.items() if name in known and value is not None}
    settings = {**named, **settings}
    for name in ("mlp_ratio", "num_heads"):
        settings[name] = tuple(settings[name])[:2]
    if settings["depth"] and isinstance(settings["depth"][0], int):  # one encoder's
        settings["depth"] = (settings["depth"],)
    settings["multi_conv"] = any(re.search(r"proj\.4\.weight$", name) for name in case.shapes)
    settings["qkv_bias"] = any(re.search(r"(qkv|wq)\.bias$", name) for name in case.shapes)
    return CrossViTSettings(**settings)


def _head_classes(case: Case) -> int:
    return case.shapes.get("head.0.bias", (0,))[0]


def _branch_names(case: Case, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Outputs of S and L under the names that the case gives them, of which S comes first."""
    pair = [name for name in case.meta["outputs"] if not name.startswith("logits")]
    return dict(zip(pair, outputs, strict=False)) | dict(
        zip(("out_small", "out_large"), outputs, strict=True)
    )


@adapter("crossvit", r"crossvit\.py (VisionTransformer|crossvit_)")
@torch.no_grad()
def _run_classifier(case: Case) -> dict[str, Tensor]:
    settings = _published_settings(case)
    model = CrossViTClassifier(vars(settings), num_classes=_head_classes(case))
    set_attention_scale(model, case, CrossAttention)
    place(model.eval(), case.state_dict())
    (image,) = case.inputs().values()
    features = model.forward_features(image)
    small, large = features.split(tuple(settings.embed_dim), 1)
    tokens = {"features": features, "cls_small": small, "cls_large": large}
    return tokens | _branch_names(case, (small, large)) | {"logits": model.forward_head(features)}


@adapter("crossvit", r"crossvit\.py MultiScaleBlock")
@torch.no_grad()
def _run_encoder(case: Case) -> dict[str, Tensor]:
    settings = _published_settings(case)
    encoder = MultiScaleBlock(settings, settings.depth[0], ()).eval()
    set_attention_scale(encoder, case, CrossAttention)
    place(encoder, case.state_dict())
    small, large = case.inputs().values()
    return _branch_names(case, encoder(small, large))


@adapter("crossvit", r"crossvit\.py CrossAttention(Block)?\b")
@torch.no_grad()
def _run_cross_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    bias = any(name.endswith("wq.bias") for name in case.shapes)
    dim, heads = given["dim"], given.get("num_heads", 8)
    layer: nn.Module = CrossAttention(dim, heads, qkv_bias=bias)
    if "Block" in case.source:
        mlp_ratio = case.shapes.get("mlp.fc1.bias", (0,))[0] / dim
        layer = CrossBlock(dim, heads, qkv_bias=bias, mlp_ratio=mlp_ratio)
    set_attention_scale(layer, case, CrossAttention)
    return run_module(layer, case)


@adapter("crossvit", r"crossvit\.py PatchEmbed")
@torch.no_grad()
def _run_patch_embed(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    dim, patch = given["embed_dim"], given.get("patch_size", 16)
    settings = CrossViTSettings(
        embed_dim=(dim, dim),
        depth=((0, 0, 0),),
        num_heads=(1, 1),
        mlp_ratio=(1, 1),
        patch_size=(patch, patch),
        multi_conv="proj.4.weight" in case.shapes,
        in_channels=given.get("in_chans", 3),
    )
    return run_module(PatchEmbed(settings, 0), case)
