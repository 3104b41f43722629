"""Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model.

arXiv 2401.09417, ICML 2024.
Code hustvl/Vim, Apache-2.0. A plain backbone without attention: patches and a class token in their MIDDLE, a
position table, then blocks that mix tokens by two selective scans, so cost grows linearly with the number of
tokens. Letters: N images, L tokens, d width, (h, w) the grid of patches.

Blocks add first: a block takes the last mixer's output (hidden) and the stream before it (residual),
completes the stream, and mixes its norm; so the last add belongs to the head. Drop path lies on that add:
block i has the rate of add i, and the first block none. What a naive reading gets wrong beyond that: the
class token stands at M // 2 of M patches and its position row with it; dense features are by default the
mixers' outputs, not the stream.

The residual and the scans stay in float32 under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.vim.mixer import BiMamba
from opsin.core.backbones.vim.rotary import rotary_tables, rotate
from opsin.core.backbones.vim.settings import VimSettings
from opsin.core.backbones.vim.tokens import CLASS_TOKENS, ClassToken, places, put_in, resize_table
from opsin.core.errors import UserError, unknown
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.plain_pyramid import FACTORS, rescale
from opsin.core.layers.position_table import square_grid
from opsin.core.published import Tensors
from opsin.registry import MODELS

LastLayer = Literal["none", "add", "add & norm"]
Pool = Literal["none", "mean", "max", "all"]


def _norm(settings: VimSettings) -> nn.RMSNorm | nn.LayerNorm:
    kind = nn.RMSNorm if settings.rms_norm else nn.LayerNorm
    return kind(settings.embed_dim, eps=settings.norm_eps)


def _normed(norm: nn.RMSNorm | nn.LayerNorm, stream: Tensor) -> Tensor:
    """The norm of a stream, in the norm's own type."""
    return norm(stream.to(norm.weight.dtype))


class PatchEmbed(nn.Module):
    """Cuts an image (N, C, H, W) into patches: tokens (N, h * w, d), row by row."""

    def __init__(self, settings: VimSettings) -> None:
        super().__init__()
        self.proj = nn.Conv2d(settings.in_channels, settings.embed_dim, settings.patch_size, settings.step)
        fan_in = self.proj.weight[0].numel()
        # LeCun normal; the constant is the standard deviation of a normal cut off at two
        nn.init.trunc_normal_(self.proj.weight, std=fan_in**-0.5 / 0.87962566103423978, a=-2, b=2)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, h * w, d)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Completes the residual stream, normalises it, mixes it.

    Args:
        settings: sizes.
        drop_path_rate: of the add that completes the stream.
    """

    def __init__(self, settings: VimSettings, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = _norm(settings)
        self.mixer = BiMamba(
            settings.embed_dim,
            d_state=settings.d_state,
            bimamba_type=settings.bimamba_type,
            if_divide_out=settings.if_divide_out,
            init_layer_scale=settings.init_layer_scale,
            depth=settings.depth,
            **settings.mixer,
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mixer output and stream (N, L, d) to those after this block; the first one has no stream."""
        residual = add(residual, hidden if residual is None else self.drop_path(hidden))
        return self.mixer(_normed(self.norm, residual)), residual


def add(residual: Tensor | None, hidden: Tensor) -> Tensor:
    """The stream with a mixer's output added, at least float32."""
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return hidden if residual is None else residual + hidden


class VimTrunk(Trunk):
    """What the classifier and the backbone share: from image to the output of every block."""

    settings: VimSettings
    class_token: ClassToken

    def build(self, settings: VimSettings, class_token: ClassToken, blocks: int) -> None:
        """Makes patch embedding, class tokens, position table and the first `blocks` blocks."""
        self.settings, self.class_token = settings, class_token
        self.patch_embed = PatchEmbed(settings)
        self.extra_names = {"both": ("cls_token_head", "cls_token_tail"), "none": ()}.get(
            class_token, ("cls_token",)
        )
        tables = dict.fromkeys(self.extra_names, 1)
        if settings.abs_pos_embed:
            tables["pos_embed"] = math.prod(settings.grid) + len(self.extra_names)
        for name, rows in tables.items():
            self.register_parameter(name, nn.Parameter(torch.empty(1, rows, settings.embed_dim)))
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
        self.pos_drop = nn.Dropout(settings.drop_rate)
        rates = [0.0, *torch.linspace(0, settings.drop_path_rate, settings.depth, device="cpu").tolist()]
        self.layers = nn.ModuleList(Block(settings, rates[i]) for i in range(blocks))
        self.drop_path = DropPath(settings.drop_path_rate)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], tuple[int, int]]:
        """Image (N, C, H, W) to tokens (N, L, d), the indices of the class tokens, and the grid."""
        grid = self.settings.grid_of(*x.shape[2:])
        patches = self.patch_embed(x)
        at = places(self.class_token, patches.shape[1])
        if self.class_token == "random":
            at = (int(torch.randint(patches.shape[1] + 1, ())),)
        extras = [self.get_parameter(name).expand(len(x), -1, -1) for name in self.extra_names]
        tokens = put_in(patches, extras, at)
        if self.settings.abs_pos_embed:
            table = resize_table(self.pos_embed, self.class_token, self.settings.grid, grid)
            tokens = tokens + table
        return self.pos_drop(tokens), at, grid

    def walk(self, tokens: Tensor, grid: tuple[int, int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Runs the blocks; after each (each pair, if they are paired): index, hidden and residual."""
        settings = self.settings
        rotation = None
        if settings.rope:
            rotation = rotary_tables(
                grid, settings.embed_dim, settings.rope_side, len(self.extra_names), tokens.device
            )
        if settings.flip_ratio > 0 and float(torch.rand(())) < settings.flip_ratio:
            tokens, rotation = tokens.flip(1), None if rotation is None else rotation.flip(1)
        hidden, residual = tokens, None
        for index in range(0, len(self.layers), 2 if settings.paired_layers else 1):
            hidden, residual = self.turn(hidden, residual, rotation)
            if settings.paired_layers:
                ahead = self.run(self.layers[index], hidden, residual)
                reverse = hidden.flip(1), None if residual is None else residual.flip(1)
                back = self.run(self.layers[index + 1], *reverse)
                hidden, residual = (a + b.flip(1) for a, b in zip(ahead, back, strict=True))
                yield index + 1, hidden, residual
            else:
                hidden, residual = self.run(self.layers[index], hidden, residual)
                yield index, hidden, residual

    def turn(
        self, hidden: Tensor, residual: Tensor | None, rotation: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rotates what enters a block, if this network does."""
        if rotation is None:
            return hidden, residual
        if residual is not None and self.settings.rope_residual:
            residual = rotate(residual, rotation)
        return rotate(hidden, rotation), residual

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class tokens and positions; block i: i + 1; the rest: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        layers = self.settings.depth + 2
        if part in ("patch_embed", "pos_embed", "cls_token", "cls_token_head", "cls_token_tail"):
            return 0, layers
        return (int(rest.split(".")[0]) + 1 if part == "layers" else layers - 1), layers

    def no_weight_decay(self) -> set[str]:
        """Class tokens, the position table, and the logarithms of A.

        The authors mark A so, though their optimizer never reads the mark.
        """
        kept = ("pos_embed", "cls_token", "cls_token_head", "cls_token_tail", "A_log", "A_b_log")
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in kept}

    def fit_positions(self, tensors: Tensors) -> Tensors:
        """Published tensors without rotary tables, positions resized to this grid and class tokens.

        Class tokens in the file that this network lacks are dropped, and their position rows with them.

        Raises:
            UserError: if a position table of another size is not that of a square grid.
        """
        fitted = {name: tensor for name, tensor in tensors.items() if not name.startswith("rope.")}
        if self.settings.abs_pos_embed and "pos_embed" in fitted:
            given: ClassToken = "both" if "cls_token_head" in fitted else "none"
            if "cls_token" in fitted:
                given = self.class_token if "cls_token" in self.extra_names else "middle"
            fitted["pos_embed"] = self._fit_table(fitted["pos_embed"], given)
        for name in ("cls_token", "cls_token_head", "cls_token_tail"):
            if name not in self.extra_names:
                fitted.pop(name, None)
        return fitted

    def _fit_table(self, table: Tensor, given: ClassToken) -> Tensor:
        grid = self.settings.grid
        patches = table.shape[1] - len(places(given, 0))
        if patches != math.prod(grid):
            table = resize_table(table, given, square_grid(patches), grid)
        drop = set(places(given, math.prod(grid))) if not self.extra_names else set()
        return table[:, [row for row in range(table.shape[1]) if row not in drop]]


@MODELS.register_module()
class VisionMamba(VimTrunk, Backbone):
    """The feature extractor of the authors' segmentation and detection code, without class token.

    Blocks after the last tapped one are not built, nor levels that no map goes to.

    Args:
        arch: 'tiny', 'small', 'base', or a mapping of `VimSettings`.
        out_indices: blocks that give a map, ascending; None is the ends of the four quarters of the depth.
            With `fpn` at most four; a single one is copied to all four levels.
        fpn: whether maps go to strides 1/4, 1/2, 1 and 2 times the grid's (4, 8, 16, 32 at stride 16; at
            patch size 8 1/2, 1, 2 and 4 times: the same); otherwise all have the grid's.
        use_residual_as_feature: maps are the stream completed through their block; else the mixer's output
            alone.
        last_layer_process: with `use_residual_as_feature`, what the very last block gives: 'none' its mixer's
            output, 'add' the stream completed, 'add & norm' the norm of that.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.
        settings: see `VimSettings`.

    Raises:
        UserError: for an unknown arch, setting or process, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] | None = None,
        fpn: bool = True,
        use_residual_as_feature: bool = False,
        last_layer_process: LastLayer = "none",
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        chosen = VimSettings.of(arch, settings)
        quarters = tuple(sorted({max(0, chosen.depth * k // 4 - 1) for k in (1, 2, 3, 4)}))
        super().__init__(
            out_indices=quarters if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self._check(chosen, fpn, use_residual_as_feature, last_layer_process)
        self.use_residual_as_feature, self.last_layer_process = use_residual_as_feature, last_layer_process
        last = self.out_indices[-1]
        self.build(chosen, "none", last + 1)
        self.norm_f = None
        if use_residual_as_feature and last == chosen.depth - 1 and last_layer_process == "add & norm":
            self.norm_f = _norm(chosen)
        self.fpn = fpn
        self.levels = (4 if len(self.out_indices) == 1 else len(self.out_indices)) if fpn else 0
        factors = [1.0] * len(self.out_indices)
        if fpn:
            factors = list(FACTORS[8 if chosen.patch_size == 8 else 16])
            for level, factor in enumerate(factors[: self.levels]):
                self.add_module(f"fpn{level + 1}", rescale(chosen.embed_dim, factor))
        self.feature_info = tuple(
            FeatureInfo(chosen.embed_dim, int(chosen.step * factor))
            for factor in factors[: self.levels or None]
        )

    def _check(self, settings: VimSettings, fpn: bool, residual: bool, last_layer_process: str) -> None:
        out, depth = self.out_indices, settings.depth
        if (
            not out
            or list(out) != sorted(set(out))
            or out[0] < 0
            or out[-1] >= depth
            or (fpn and len(out) > 4)
        ):
            raise UserError(
                f"out_indices {out} must ascend within 0..{depth - 1}" + (", at most four" if fpn else "")
            )
        if last_layer_process not in ("none", "add", "add & norm"):
            raise unknown("last_layer_process", last_layer_process, ("none", "add", "add & norm"))
        if settings.paired_layers and (any(i % 2 == 0 for i in out) or (residual and out != (depth - 1,))):
            raise UserError(
                f"out_indices {out} of paired layers must be odd",
                f"or {depth - 1} alone for the residual as feature",
            )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) to maps (N, d, …) as `feature_info` says."""
        tokens, _, grid = self.embed(x)
        maps = [m.transpose(1, 2).unflatten(2, grid) for m in self._tapped(tokens, grid)]
        if not self.fpn:
            return tuple(m.contiguous() for m in maps)
        maps = maps * self.levels if len(maps) == 1 else maps
        return tuple(self.get_submodule(f"fpn{i + 1}")(m.to(tokens.dtype)) for i, m in enumerate(maps))

    def _tapped(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """The features (N, L, d) of `out_indices`."""
        if not self.use_residual_as_feature:
            return [hidden for index, hidden, _ in self.walk(tokens, grid) if index in self.out_indices]
        steps = list(self.walk(tokens, grid))
        # a block completes the stream of the one before it
        maps = [after[2] for before, after in pairwise(steps) if before[0] in self.out_indices]
        last, hidden, residual = steps[-1]
        if last < self.settings.depth - 1 or self.last_layer_process == "add":
            return [*maps, add(residual, hidden)]
        if self.norm_f is not None:
            return [*maps, _normed(self.norm_f, add(residual, hidden))]
        return [*maps, hidden]

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0) or a block (from 1)."""
        if stage == 0:
            return [self.patch_embed]
        return [self.layers[stage - 1]] if stage <= len(self.layers) else []

    def train(self, mode: bool = True) -> VisionMamba:
        """Training mode for all but the frozen stages; the position table is frozen with the patches."""
        super().train(mode)
        if self.frozen_stages >= 0 and self.settings.abs_pos_embed:
            self.pos_embed.requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifiers or dense models to those of this backbone.

        A class token and its position row (M // 2, where it stands in the released files) are dropped and the
        table is resized; so are the head and whatever this backbone does not build. Parts that a classifier
        lacks stay as they are.
        """
        own = self.state_dict()
        given = self.fit_positions({name.removeprefix("net."): tensor for name, tensor in tensors.items()})
        fresh = {name: tensor for name, tensor in own.items() if name.startswith("fpn")}
        return {
            **fresh,
            **{name: tensor for name, tensor in given.items() if not self._leaves_out(name, own)},
        }

    def _leaves_out(self, name: str, own: Tensors) -> bool:
        part, _, rest = name.partition(".")
        if part == "layers":
            return rest.split(".")[0].isdigit() and int(rest.split(".")[0]) >= len(self.layers)
        return part == "head" or (part in ("norm_f", "fpn1", "fpn2", "fpn3", "fpn4") and name not in own)


@MODELS.register_module()
class VisionMambaClassifier(VimTrunk, Classifier):
    """The published classifier: class token or pooled tokens, norm, linear head.

    Args:
        arch: 'tiny', 'small', 'base', or a mapping of `VimSettings`.
        num_classes: logits; 0 for no head.
        class_token: 'middle', 'first', 'random' (drawn at every forward), 'both' (one at each end, averaged),
            'none'.
        pool: without class token: 'none' the last token, 'mean' of all, 'max' over the tokens' logits, 'all'
            tokens.
        shuffle_tokens: whether tokens go through the blocks in random order, drawn at every forward.
        with_cp, init_cfg: see `Trunk`.
        settings: see `VimSettings`.

    Raises:
        UserError: for an unknown arch, setting, class token or pool.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        class_token: ClassToken = "middle",
        pool: Pool = "mean",
        shuffle_tokens: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        chosen = VimSettings.of(arch, settings)
        for kind, given, known in (
            ("class_token", class_token, CLASS_TOKENS),
            ("pool", pool, ("none", "mean", "max", "all")),
        ):
            if given not in known:
                raise unknown(kind, str(given), known)
        self.pool, self.shuffle_tokens = pool, shuffle_tokens
        self.build(chosen, class_token, chosen.depth)
        self.norm_f = _norm(chosen)
        self.num_features = chosen.embed_dim
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the vector (N, d) for the head, or tokens (N, L, d) with pool 'max' or 'all'."""
        tokens, at, grid = self.embed(x)
        if self.shuffle_tokens:
            order = torch.randperm(tokens.shape[1], device=tokens.device)
            tokens = tokens[:, order]
            at = tuple(int((order == place).nonzero()) for place in at)
        *_, (_, hidden, residual) = self.walk(tokens, grid)
        stream = add(residual, self.drop_path(hidden))
        normed = _normed(self.norm_f, stream)
        if at:
            return normed[:, list(at)].mean(1)
        if self.pool == "mean":
            return normed.mean(1)
        return normed[:, -1] if self.pool == "none" else normed

    def forward_head(self, features: Tensor) -> Tensor:
        """Features to logits (N, num_classes); with pool 'all' those of every token."""
        logits = self.head(features)
        return logits.amax(1) if self.pool == "max" and logits.ndim == 3 else logits

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifiers to those of this one: positions are resized to its grid."""
        return self.fit_positions(tensors)
