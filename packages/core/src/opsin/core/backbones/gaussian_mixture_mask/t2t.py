"""The T2T host: overlapping patches that are split, mixed and split again, then blocks (arXiv 2101.11986).

Gaussian mixture mask (arXiv 2309.05375). Every soft split cuts 3x3 patches at a stride of 2, so two of them
(at 32 pixels) have stride 4, three (at 64) stride 8. Between two splits a token transformer with one head
brings the patches, 27 or 576 values, to 64; its mask is that of the finer grid.

What a naive reading gets wrong: a token transformer scales its logits by the width of its input to the power
-0.5, and takes the values themselves, not the input, as what its attention is added to; a block's attention
adds its own normed input, so that a block is x + (n + proj(attention of n)) with n the normed x; positions
are sinusoids of the place in the row-by-row order; there is neither class token nor the norm that the last
split seems to have: as published both exist without being used (`unused_parameters`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier, resolve_arch
from opsin.core.backbones.gaussian_mixture_mask.attention import MaskedAttention
from opsin.core.backbones.gaussian_mixture_mask.host import HostSettings
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid, MaskSettings
from opsin.core.backbones.gaussian_mixture_mask.names import without_base
from opsin.core.backbones.gaussian_mixture_mask.plain import EPS, PlainBackbone, PlainTrunk, xavier_linears
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.token_block import TokenBlock
from opsin.core.layers.weighted_attention import weighted_attention
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 256, "depth": 12, "num_heads": 4, "mlp_ratio": 2.0, "token_dim": 64}
}
PATCHES_A_SIDE = 8
PIXELS = 9  # of a split's patch


def soft_split(x: Tensor) -> tuple[Tensor, Grid]:
    """Map (N, C, H, W) to overlapping 3x3 patches (N, h * w, 9 C), channel by channel, and their grid."""
    size = ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
    return F.unfold(x, 3, stride=2, padding=1).transpose(1, 2), size


def sinusoids(length: int, dim: int, *, device: torch.device) -> Tensor:
    """(length, dim) sines in even channels and cosines in odd ones, of wavelengths up to 10000 * 2 pi."""
    channels = torch.arange(dim, device=device)
    rates = torch.pow(10000.0, -2.0 * (channels // 2) / dim)
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())


class TokenAttention(nn.Module):
    """Attention of one head that changes the width: v + proj(attention); parameters `qkv`, `proj`, `mask`.

    Args:
        dim: width of the input, whose root divides the logits.
        out_dim: width of the output.
        mask: called with the map's size, gives what multiplies the logits; None is plain attention.
    """

    def __init__(self, dim: int, out_dim: int, mask: nn.Module | None = None) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * out_dim, bias=False)
        self.proj = nn.Linear(out_dim, out_dim)
        self.mask = mask

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, dim), tokens of a map of `size`, to (B, N, out_dim)."""
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
        if self.mask is None:
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            y = weighted_attention(q, k, v, self.mask(size), self.scale)
        return (v + self.proj(y)).squeeze(1)


class TokenTransformer(nn.Module):
    """Norm and attention to another width, norm and perceptron of that width with a residual.

    Args:
        dim: width of the input.
        out_dim: width of the output.
        mask: see `TokenAttention`.
    """

    def __init__(self, dim: int, out_dim: int, mask: nn.Module | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = TokenAttention(dim, out_dim, mask)
        self.norm2 = nn.LayerNorm(out_dim, eps=EPS)
        self.mlp = Mlp(out_dim, out_dim)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, dim), tokens of a map of `size`, to (B, N, out_dim)."""
        x = self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Soft splits with a token transformer between any two, and a linear layer.

    Args:
        in_channels: channels of the image.
        dim: width of the tokens, C.
        token_dim: width between the splits.
        splits: how many splits there are.
        img_size: side of the usual images.
        mask: what the token transformers have.
        unused_parameters: whether there is the norm that nothing uses.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        token_dim: int,
        splits: int,
        *,
        img_size: int,
        mask: MaskSettings,
        unused_parameters: bool,
    ) -> None:
        super().__init__()
        self.patch_size = 2**splits
        width = PIXELS * in_channels
        for number in range(1, splits):
            side = -(-img_size // 2**number)
            attention = TokenTransformer(width, token_dim, mask.make(1, (side, side)))
            self.add_module(f"attention{number}", attention)
            width = PIXELS * token_dim
        self.norm = nn.LayerNorm(width, eps=EPS) if unused_parameters else None
        self.project = nn.Linear(width, dim)

    def token_transformers(self) -> Iterable[nn.Module]:
        """The token transformers, finest first."""
        return (module for name, module in self.named_children() if name.startswith("attention"))


class ResidualAttention(MaskedAttention):
    """The attention of a block, which adds what it is given."""

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        return x + super().forward(x, size)


class T2TTrunk(PlainTrunk):
    """What backbone and classifier share: soft splits and blocks."""

    stem_names = ("tokens_to_token", "cls_token")

    def build(
        self,
        arch: str | Mapping[str, Any],
        host: HostSettings,
        *,
        splits: int | None,
        unused_parameters: bool,
        blocks: int | None = None,
    ) -> int:
        """Makes the parts, of the blocks the first `blocks`; returns the width."""
        settings = resolve_arch("MaskedT2T", ARCHS, arch)
        dim, num_heads, self.depth = settings["embed_dim"], settings["num_heads"], settings["depth"]
        if splits is None:
            splits = max(1, round(math.log2(host.img_size / PATCHES_A_SIDE)))
        side = -(-host.img_size // 2**splits)
        self.mask = host.mask_settings()
        self.tokens_to_token = TokensToToken(
            host.in_channels,
            dim,
            settings["token_dim"],
            splits,
            img_size=host.img_size,
            mask=self.mask,
            unused_parameters=unused_parameters,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if unused_parameters else None
        (rates,) = drop_path_rates(host.drop_path_rate, (self.depth,))
        self.blocks = nn.ModuleList(
            TokenBlock(
                dim,
                ResidualAttention(dim, num_heads, dim // num_heads, self.mask.make(num_heads, (side, side))),
                mlp_ratio=settings["mlp_ratio"],
                drop_path_rate=rate,
                eps=EPS,
            )
            for rate in rates[:blocks]
        )
        self.apply(xavier_linears)
        return int(dim)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to tokens (N, h * w, C) after every block, and the grid; sides round up."""
        tokens, size = soft_split(x)
        for transformer in self.tokens_to_token.token_transformers():
            tokens = self.run(transformer, tokens, size)
            tokens, size = soft_split(tokens.transpose(1, 2).unflatten(2, size))
        tokens = self.tokens_to_token.project(tokens)
        tokens = tokens + sinusoids(tokens.shape[1], tokens.shape[2], device=tokens.device)
        for block in self.blocks:
            tokens = self.run(block, tokens, size)
            yield tokens, size

    def authors_tensors(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file without frozen tables, and without what nothing uses unless built."""
        own = self.state_dict()
        kept = without_base(tensors, learned=self.mask.kind == "elm")
        unused = re.compile(r"^(pos_embed|cls_token|tokens_to_token\.norm\..*)$")
        return {name: tensor for name, tensor in kept.items() if name in own or not unused.match(name)}


@MODELS.register_module()
class MaskedT2T(T2TTrunk, PlainBackbone):
    """The feature extractor; the authors have none of this host.

    Args:
        arch: 'tiny', or dict(embed_dim=…, depth=…, num_heads=…, mlp_ratio=…, token_dim=…).
        splits: soft splits, each of which doubles the stride; None brings `img_size` to 8 x 8 tokens.
        unused_parameters: whether to have the published tensors that nothing uses, a class token and a norm.
            They get no gradient, which distributed training must be told (`find_unused_parameters`).
        out_indices: blocks that give a map; None is the ends of the four quarters of the depth. Blocks after
            the last are not built.
        fpn: whether maps go to four strides (4, 8, 16 and 32 for three or four splits); otherwise all have
            the tokens'.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.
        host: see `HostSettings`; learned masks and `splits` are for its `img_size`.

    Raises:
        UserError: for an unknown arch or mask, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        splits: int | None = None,
        unused_parameters: bool = False,
        out_indices: Sequence[int] | None = None,
        fpn: bool = True,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        super().__init__(
            resolve_arch("MaskedT2T", ARCHS, arch)["depth"],
            out_indices=out_indices,
            fpn=fpn,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        dim = self.build(
            arch,
            HostSettings.of(host),
            splits=splits,
            unused_parameters=unused_parameters,
            blocks=self.out_indices[-1] + 1,
        )
        self.add_levels(dim, self.tokens_to_token.patch_size)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The soft splits (0) or a block (from 1)."""
        return [self.tokens_to_token] if stage == 0 else super().stage_modules(stage)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone."""
        return self.of_classifier(self.authors_tensors(tensors))


@MODELS.register_module()
class MaskedT2TClassifier(T2TTrunk, Classifier):
    """The published classifier: soft splits, blocks, norm, mean over the tokens, linear head.

    Args:
        arch, splits, unused_parameters, host: as for `MaskedT2T`.
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
        splits: int | None = None,
        unused_parameters: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.num_features = self.build(
            arch, HostSettings.of(host), splits=splits, unused_parameters=unused_parameters
        )
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the normed tokens (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens).mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file."""
        return self.authors_tensors(backbone_of(tensors, "head."))
