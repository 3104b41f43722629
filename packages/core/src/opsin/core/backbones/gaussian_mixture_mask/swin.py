"""The Swin host: shifted windows (arXiv 2103.14030) with a mask of the window in every attention.

Gaussian mixture mask (arXiv 2309.05375). Image (N, 3, H, W) to maps whose strides are the patch size, which
is a sixteenth of `img_size`, and twice and four times that; sides round up. The published network has three
stages; `arch` may have any number, so that patches of 4 pixels and four stages make a masked Swin at strides
4, 8, 16 and 32.

What a naive reading gets wrong: the mask is the window's, the same at all stages; it multiplies the scaled
logits before position bias and shift mask are added to them; there are absolute positions besides the
relative ones; windows are not shifted where the map is no larger than a window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.gaussian_mixture_mask.host import PatchSettings
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid
from opsin.core.backbones.gaussian_mixture_mask.names import without_base
from opsin.core.backbones.gaussian_mixture_mask.plain import EPS, fit_positions
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.position_table import resize_position_table, square_grid
from opsin.core.layers.relative_bias import resize_bias_table
from opsin.core.layers.shifted_windows import attend_in_windows
from opsin.core.layers.stage import Stage
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.token_block import TokenBlock
from opsin.core.layers.weight_init import init_linear
from opsin.core.layers.window_attention import WindowAttention
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 96,
        "depths": (2, 6, 4),
        "num_heads": (3, 6, 12),
        "window_size": 4,
        "mlp_ratio": 2.0,
    }
}
PATCHES_A_SIDE = 16
# what the authors' files hold and the architecture tells
COMPUTED = re.compile(r"\.(relative_position_index|attn_mask)$")
BIAS_TABLE = "relative_position_bias_table"


class MaskedWindowAttention(WindowAttention):
    """Attention inside windows, its logits multiplied by a mask.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        window_size: side of a window.
        is_shifted: whether windows are shifted by half of their side where the map is larger than one.
        mask: called with the window's size, gives what multiplies the logits; None is plain attention.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: int, *, is_shifted: bool, mask: nn.Module | None
    ) -> None:
        super().__init__(dim, num_heads, (window_size, window_size))
        self.shift = window_size // 2 if is_shifted else 0
        self.mask = mask

    def forward(self, x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) to the same shape; `mask` (windows, N, N) keeps opposite borders apart."""
        return super().forward(x, mask, self.mask(self.window) if self.mask is not None else weights)

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        shift = self.shift if min(size) > self.window[0] else 0
        return attend_in_windows(self, x.unflatten(1, size), self.window, (shift, shift)).flatten(1, 2)


class WindowBlock(TokenBlock):
    """The block with attention inside windows."""

    attn: MaskedWindowAttention

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """The attention of normed tokens (B, N, C)."""
        return self.attn.attend(x, size)


class SwinTrunk(Trunk):
    """What backbone and classifier share: patches, positions and stages."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    grid: Grid

    def build(
        self,
        arch: str | Mapping[str, Any],
        host: PatchSettings,
        *,
        clamp_windows: bool,
        stages: int | None = None,
    ) -> None:
        """Makes the first `stages` stages; with `clamp_windows` none has windows larger than its map."""
        settings = resolve_arch("MaskedSwin", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        num_heads = settings["num_heads"]
        if len(num_heads) != len(self.depths):
            raise UserError(f"num_heads {num_heads} of MaskedSwin must have {len(self.depths)} entries")
        self.dims = tuple(settings["embed_dim"] * 2**stage for stage in range(len(self.depths)))
        patch_size, self.grid = host.patches(PATCHES_A_SIDE)
        side = self.grid[0]
        self.mask = host.mask_settings()
        self.patch_embed = PatchEmbedding(host.in_channels, self.dims[0], patch_size, pad=True)
        self.absolute_pos_embed = nn.Parameter(torch.empty(1, side * side, self.dims[0]))
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        rates = drop_path_rates(host.drop_path_rate, self.depths)
        self.layers = nn.ModuleList()
        built = len(self.depths) if stages is None else stages
        for stage in range(built):
            window = settings["window_size"]
            if clamp_windows:
                window = min(window, -(-side // 2**stage))
            blocks = [
                self._block(self.dims[stage], num_heads[stage], window, index % 2 == 1, settings, rate)
                for index, rate in enumerate(rates[stage])
            ]
            self.layers.append(Stage(blocks, SwinMerging(self.dims[stage]) if stage < built - 1 else None))
        self.apply(init_linear)

    def _block(
        self,
        dim: int,
        num_heads: int,
        window: int,
        is_shifted: bool,
        settings: Mapping[str, Any],
        rate: float,
    ) -> WindowBlock:
        if dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide a width of {dim}")
        mask = self.mask.make(num_heads, (window, window))
        attn = MaskedWindowAttention(dim, num_heads, window, is_shifted=is_shifted, mask=mask)
        return WindowBlock(dim, attn, mlp_ratio=settings["mlp_ratio"], drop_path_rate=rate, eps=EPS)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to the tokens (N, h * w, C) of every stage, and the size (h, w) of their map."""
        x = self.patch_embed(x)
        size = (x.shape[1], x.shape[2])
        x = x + resize_position_table(self.absolute_pos_embed, self.grid, size).unflatten(1, size)
        for stage in self.layers.children():
            assert isinstance(stage, Stage)
            size = (x.shape[1], x.shape[2])
            tokens = x.flatten(1, 2)
            for block in stage.blocks:
                tokens = self.run(block, tokens, size)
            yield tokens, size
            if stage.downsample is not None:
                x = stage.downsample(tokens.unflatten(1, size))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: patches and positions, every block, the head.

        A merging goes with the block after it, an output's norm with the block before it.
        """
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        part = re.match(r"layers\.(\d+)\.(blocks\.(\d+)|downsample)", name)
        if part is not None:
            inside = int(part[3]) if part[3] else self.depths[int(part[1])]
            return sum(self.depths[: int(part[1])]) + inside + 1, last + 1
        norm = re.match(r"norm(\d+)\.", name)
        if norm is not None:
            return sum(self.depths[: int(norm[1]) + 1]), last + 1
        return 0 if name.startswith(("patch_embed.", "absolute_pos_embed")) else last, last + 1

    def fit_tables(self, tensors: Tensors) -> Tensors:
        """Published tensors without computed ones; position tables are resized to those of this network."""
        own = self.state_dict()
        kept = {n: t for n, t in tensors.items() if not COMPUTED.search(n)}
        kept = without_base(kept, learned=self.mask.kind == "elm")
        fitted = {
            n: _fit_bias(t, own[n]) if n.endswith(BIAS_TABLE) and n in own else t for n, t in kept.items()
        }
        return fit_positions(own, fitted, "absolute_pos_embed")


def _fit_bias(table: Tensor, like: Tensor) -> Tensor:
    """A table of the biases of a square window for another square window."""
    if table.shape == like.shape or table.shape[1] != like.shape[1]:
        return table
    (window, _), (new_window, _) = (square_grid(len(t)) for t in (table, like))
    sides = ((window + 1) // 2, (new_window + 1) // 2)
    return resize_bias_table(table, (sides[0], sides[0]), (sides[1], sides[1]))


@MODELS.register_module()
class MaskedSwin(SwinTrunk, Backbone):
    """The feature extractor; the authors have none of this host. Each map has a norm of its own, `norm0` ….

    Args:
        arch: 'tiny', or dict(embed_dim=…, depths=…, num_heads=…, window_size=…, mlp_ratio=…) of as many
            stages as you like.
        out_indices: stages that give a map, None all; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        host: see `PatchSettings`.

    Raises:
        UserError: for an unknown arch or mask, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        stages = len(resolve_arch("MaskedSwin", ARCHS, arch)["depths"])
        super().__init__(
            out_indices=range(stages) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(stages)
        self.build(arch, PatchSettings.of(host), clamp_windows=False, stages=self.out_indices[-1] + 1)
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(self.dims[index], eps=EPS))
        stride = self.patch_embed.patch_size
        self.feature_info = tuple(FeatureInfo(self.dims[i], stride * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = []
        for index, (tokens, size) in enumerate(self.walk(x)):
            if index in self.out_indices:
                tokens = self.get_submodule(f"norm{index}")(tokens)
                maps.append(tokens.transpose(1, 2).unflatten(2, size).contiguous())
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or stage `stage` with the merging after it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        if stage > len(self.layers):
            return []
        has_norm = stage - 1 in self.out_indices
        return [self.layers[stage - 1]] + ([self.get_submodule(f"norm{stage - 1}")] if has_norm else [])

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen stages; absolute positions freeze with the patches."""
        super().train(mode)
        if self.frozen_stages >= 0:
            self.absolute_pos_embed.requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier to those of this backbone, whose own norms keep their values."""
        built = len(self.layers)
        later = "|".join(str(stage) for stage in range(built, len(self.depths))) or "none"
        unused = rf"^(norm\d*|head)\.|^layers\.(({later})\.|{built - 1}\.downsample\.)"
        return fit(
            self.state_dict(), self.fit_tables(backbone_of(tensors)), fresh=r"^norm\d+\.", unused=unused
        )


@MODELS.register_module()
class MaskedSwinClassifier(SwinTrunk, Classifier):
    """The published classifier: three stages, norm, mean of the tokens, linear head.

    Args:
        arch, host: as for `MaskedSwin`; a window that would be larger than its map at `img_size` is of the
            map's size.
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
        self.build(arch, PatchSettings.of(host), clamp_windows=True)
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the last stage's normed tokens (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens).mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; tables of another image size are resized."""
        return self.fit_tables(backbone_of(tensors, "head."))
