"""Adapting LLaMA Decoder to Vision Transformer (arXiv 2404.06773): the network.

A plain vision transformer from LLaMA's parts: RMSNorm, SwiGLU, rotary positions, causal attention. Letters: B
images, N patches, L = N + 1 tokens, D width, d width of a head. The sequence is the patches row by row and
then the class token, so that under the causal mask the class token is the one that sees everything.

What a naive reading gets wrong: the mask multiplies the attention after its softmax over all tokens, and
nothing is normalised again, so a row of the masked attention sums to less than one, except the class token's.
Later patches therefore still act on earlier tokens, though only as a common factor on what these read. The
mask's upper half is not zero but `soft_mask_rate`, which training lets fall from 1 to 0 (see `soft_mask`) and
which applies in evaluation too. Rotary pairs are neighbouring channels, as in Meta's code; the class token is
rotated as position N, and there is a learned position table besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.illama.settings import ILLaMASettings
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.plain_pyramid import PlainPyramid
from opsin.core.layers.position_table import Grid, resize_position_table, square_grid
from opsin.core.layers.weight_init import init_linear
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

EPS = 1e-6
THETA = 10000.0


def rotation(tokens: int, dim: int, device: torch.device) -> Tensor:
    """Unit complex numbers (tokens, dim / 2) that turn the channel pairs of every position."""
    rates = THETA ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), rates)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turns the channel pairs (0, 1), (2, 3), … of x (…, tokens, d), in float32; the result has x's type."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


def soft_mask(tokens: int, rate: float, device: torch.device) -> Tensor:
    """(tokens, tokens): 1 up to the diagonal, `rate` above it."""
    ones = torch.ones(tokens, tokens, device=device)
    return torch.lerp(ones.tril(), ones, rate)


class MaskedAttention(nn.Module):
    """Self-attention with rotary positions, whose softmax is multiplied by a mask.

    Args:
        dim: width D.
        num_heads: heads; divides `dim`.
        qkv_bias: whether `qkv` has a bias.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, D) to the same shape.

        Args:
            x: tokens.
            turns: of `rotation`, (L, d / 2).
            mask: factors (L, L) on the attention; None for ones, which need no table of that size.
        """
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        (q, k), v = rotate(qkv[:2], turns), qkv[2]
        if mask is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(-1)
            y = weights * mask @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """fc2(silu(fc1 x) * fc3 x), without biases; (…, dim) to the same shape."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, bias=False)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=False)
        self.fc3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to the same shape."""
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))


class Block(nn.Module):
    """A pre-norm decoder block: masked attention, then SwiGLU, each with a residual."""

    def __init__(self, settings: ILLaMASettings, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.norm1 = nn.RMSNorm(dim, eps=EPS)
        self.attn = MaskedAttention(dim, settings.num_heads, qkv_bias=settings.qkv_bias)
        self.norm2 = nn.RMSNorm(dim, eps=EPS)
        self.mlp = SwiGLU(dim, settings.hidden_dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, L, D) to the same shape; `turns` and `mask` as for `MaskedAttention`."""
        x = x + self.drop_path(self.attn(self.norm1(x), turns, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ILLaMATrunk(Trunk):
    """What the classifier and the backbone share: from the image to the output of every block.

    `soft_mask_rate` may be set at any time; it holds until it is set again, in evaluation too.
    """

    settings: ILLaMASettings
    soft_mask_rate: float

    def build(self, settings: ILLaMASettings, blocks: int, soft_mask_rate: float) -> None:
        """Makes the embedding and the first `blocks` blocks."""
        self.settings, self.soft_mask_rate = settings, soft_mask_rate
        dim, (rows, columns) = settings.embed_dim, settings.grid
        self.patch_embed = PatchEmbedding(settings.in_channels, dim, settings.patch_size, norm=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, rows * columns + 1, dim))
        self.pos_drop = nn.Dropout(settings.drop_rate)
        rates = drop_path_rates(settings.drop_path_rate, [settings.depth])[0]
        self.blocks = nn.ModuleList(Block(settings, rate) for rate in rates[:blocks])
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_linear)

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """Image (B, 3, H, W) to tokens (B, L, D), the class token last, and the grid of patches."""
        grid = self.settings.grid_of(*x.shape[2:])
        patches = self.patch_embed(x).flatten(1, 2)
        tokens = cat((patches, self.cls_token.expand(len(x), -1, -1)), 1)
        table = resize_position_table(self.pos_embed, self.settings.grid, grid, after=1)
        return self.pos_drop(tokens + table), grid

    def walk(self, tokens: Tensor) -> Iterator[Tensor]:
        """The tokens (B, L, D) after every block."""
        length, dim = tokens.shape[1], self.settings.embed_dim // self.settings.num_heads
        turns, mask = rotation(length, dim, tokens.device), None
        if self.soft_mask_rate != 1:
            mask = soft_mask(length, self.soft_mask_rate, tokens.device)
        for block in self.blocks:
            tokens = self.run(block, tokens, turns, mask)
            yield tokens

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class token and positions; block i: i + 1; the rest: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        layers = self.settings.depth + 2
        if part in ("patch_embed", "pos_embed", "cls_token"):
            return 0, layers
        return (int(rest.split(".")[0]) + 1 if part == "blocks" else layers - 1), layers

    def no_weight_decay(self) -> set[str]:
        """The class token and the position table."""
        return {"cls_token", "pos_embed"}

    def fit_positions(self, tensors: Tensors) -> Tensors:
        """Published tensors with the position table resized to the own grid.

        Raises:
            UserError: if a table of another size is not that of a square grid.
        """
        fitted = backbone_of(tensors, "head.")
        table = fitted.get("pos_embed")
        if table is not None and table.shape[1] != self.pos_embed.shape[1]:
            given = square_grid(table.shape[1] - 1)
            resized = resize_position_table(table, given, self.settings.grid, after=1)
            fitted = {**fitted, "pos_embed": resized}
        return fitted


@MODELS.register_module()
class ILLaMA(ILLaMATrunk, Backbone):
    """Dense features: patch tokens of some blocks, as maps; blocks after the last of them are not built.

    Under the causal mask a patch reads those above and to the left alone, so maps of late blocks serve best.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or a mapping of `ILLaMASettings`.
        out_indices: blocks that give a map, ascending; None is the ends of the four quarters of the depth.
            With `fpn` at most four; a single one goes to all four levels.
        fpn: whether maps go to strides 4, 8, 16 and 32; otherwise all have the grid's.
        soft_mask_rate: what the mask has above its diagonal, in [0, 1].
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.
        settings: see `ILLaMASettings`.

    Raises:
        UserError: for an unknown arch or setting, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] | None = None,
        fpn: bool = True,
        soft_mask_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        chosen = ILLaMASettings.of(arch, settings)
        quarters = sorted({max(0, chosen.depth * k // 4 - 1) for k in (1, 2, 3, 4)})
        super().__init__(
            out_indices=quarters if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(chosen.depth)
        maps, patch = len(self.out_indices), chosen.patch_size
        if fpn and maps > 4:
            raise UserError(
                f"out_indices {self.out_indices} of a pyramid are more than four", "set fpn=False"
            )
        self.build(chosen, self.out_indices[-1] + 1, soft_mask_rate)
        self.fpn = PlainPyramid(chosen.embed_dim, patch, 4 if maps == 1 else maps) if fpn else None
        strides = self.fpn.strides if self.fpn is not None else (patch,) * maps
        self.feature_info = tuple(FeatureInfo(chosen.embed_dim, stride) for stride in strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to maps as `feature_info` says."""
        tokens, grid = self.embed(x)
        maps = [
            after[:, :-1].transpose(1, 2).unflatten(2, grid).contiguous()
            for index, after in enumerate(self.walk(tokens))
            if index in self.out_indices
        ]
        return self.fpn(maps) if self.fpn is not None else tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0) or a block (from 1)."""
        if stage == 0:
            return [self.patch_embed]
        return [self.blocks[stage - 1]] if stage <= len(self.blocks) else []

    def train(self, mode: bool = True) -> ILLaMA:
        """Training mode for all but the frozen stages; class token and positions freeze with the patches."""
        super().train(mode)
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)
            self.pos_embed.requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file to those of this backbone.

        Norm, head and blocks that this backbone does not build are dropped; its pyramid stays as it is.
        """
        beyond = "|".join(str(index) for index in range(len(self.blocks), self.settings.depth)) or "-"
        unused = rf"^(norm|head|blocks\.({beyond}))\."
        return fit(self.state_dict(), self.fit_positions(tensors), fresh=r"^fpn\.", unused=unused)


@MODELS.register_module()
class ILLaMAClassifier(ILLaMATrunk, Classifier):
    """The published classifier: the class token, normed, and a linear head.

    Args:
        arch: as for `ILLaMA`.
        num_classes: logits; 0 for no head.
        soft_mask_rate: what the mask has above its diagonal, in [0, 1].
        with_cp, init_cfg: see `Trunk`.
        settings: see `ILLaMASettings`.

    Raises:
        UserError: for an unknown arch or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        soft_mask_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        chosen = ILLaMASettings.of(arch, settings)
        self.build(chosen, chosen.depth, soft_mask_rate)
        self.norm = nn.RMSNorm(chosen.embed_dim, eps=EPS)
        self.num_features = chosen.embed_dim
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the normed class token (B, D)."""
        *_, last = self.walk(self.embed(x)[0])
        return self.norm(last[:, -1])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file, positions resized to the own grid."""
        return self.fit_positions(tensors)
