"""MoH-DiT: the diffusion transformer DiT (arXiv 2212.09748) with a mixture of heads (arXiv 2410.11842).

Authors' code: SkyworkAI/MoH (Apache-2.0), whose DiT part comes from facebookresearch/DiT (CC-BY-NC 4.0). A
network for latents: what noise lies in (N, 4, H, W) at step t for a class, and the variance of the step.
Every block is shifted, scaled and gated by what step and class tell (adaLN-zero), so that at the beginning of
training it does nothing.

What a naive reading gets wrong: in the position table the first half of the channels tells the column, the
second the row; in the step's table cosines come before sines; guidance acts on the first three of the four
channels of the noise alone, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Trunk
from opsin.core.backbones.moh.attention import MoHAttention
from opsin.core.backbones.moh.routing import auxiliary_losses
from opsin.core.backbones.settings import one_a_stage, resolve_settings
from opsin.core.errors import UserError
from opsin.core.layers.attention import Attention
from opsin.core.layers.mlp import Mlp
from opsin.registry import MODELS

EPS = 1e-6
FREQUENCIES = 256  # channels of the step's table
MAX_PERIOD = 10000.0
GUIDED_CHANNELS = 3
HEADS = ("num_heads", "shared_heads", "routed_heads", "head_dim")  # settings of a block's attention


@dataclass(frozen=True)
class MoHDiTSettings:
    """Sizes and switches of a MoH-DiT; what may differ from block to block is one number or one a block.

    Args:
        dim: width of the tokens.
        depth: blocks.
        num_heads: heads, one number or one a block.
        shared_heads: how many of them, the first, are always on; None for plain multi-head attention.
        routed_heads: how many of the others each token uses.
        head_dim: width of a head, one number or one a block; dim / num_heads if None.
        input_size: side of the latents; they are square.
        patch_size: side of the patches that become tokens.
        in_channels: channels of the latents.
        mlp_ratio: hidden width of the perceptrons over `dim`.
        num_classes: classes; one more row of their table means none.
        class_dropout_rate: chance that a class is replaced by none in training; with 0 there is no such row.
        learn_variance: whether as many channels again tell the variance.
        qk_norm: see `MoHAttention`; the published models have none.
        load_balance_weight: factor on the load-balance loss in `auxiliary_losses`.
    """

    dim: int
    depth: int
    num_heads: int | Sequence[int]
    shared_heads: int | Sequence[int] | None
    routed_heads: int | Sequence[int] | None
    head_dim: int | Sequence[int] | None = None
    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    class_dropout_rate: float = 0.1
    learn_variance: bool = True
    qk_norm: bool = False
    load_balance_weight: float = 0.01

    def per_block(self, name: str) -> tuple[Any, ...]:
        """A setting's value for every block.

        Raises:
            UserError: if it has another number of entries than there are blocks.
        """
        return one_a_stage(f"{name} of MoHDiT", getattr(self, name), self.depth)


def _runs(*runs: tuple[int, int]) -> tuple[int, ...]:
    """Numbers written as (number, how many blocks have it)."""
    return tuple(number for number, blocks in runs for _ in range(blocks))


_S: dict[str, Any] = {"dim": 384, "depth": 12, "num_heads": 6}
_B: dict[str, Any] = {"dim": 768, "depth": 12, "num_heads": 12}
_L: dict[str, Any] = {
    "dim": 1024,
    "depth": 24,
    "num_heads": _runs((8, 8), (16, 8), (24, 8)),
    "head_dim": 64,
}
_XL: dict[str, Any] = {
    "dim": 1152,
    "depth": 28,
    "num_heads": _runs((8, 9), (16, 10), (24, 9)),
    "head_dim": 72,
}


def _arch(
    size: Mapping[str, Any], shared: Sequence[tuple[int, int]], routed: Sequence[tuple[int, int]]
) -> MoHDiTSettings:
    return MoHDiTSettings(**size, shared_heads=_runs(*shared), routed_heads=_runs(*routed))


# size, patch size, share of heads in use in percent
ARCHS: dict[str, MoHDiTSettings] = {
    "s_2_90": _arch(_S, [(3, 8), (6, 4)], [(2, 8), (0, 4)]),
    "s_2_75": _arch(_S, [(2, 2), (3, 8), (6, 2)], [(1, 6), (2, 4), (0, 2)]),
    "b_2_90": _arch(_B, [(6, 5), (7, 5), (12, 2)], [(4, 10), (0, 2)]),
    "b_2_75": _arch(_B, [(4, 2), (6, 8), (12, 2)], [(2, 2), (3, 8), (0, 2)]),
    "l_2_90": _arch(_L, [(8, 8), (16, 16)], [(0, 16), (3, 8)]),
    "l_2_75": _arch(_L, [(8, 16), (12, 8)], [(0, 8), (4, 16)]),
    "xl_2_90": _arch(_XL, [(8, 9), (16, 19)], [(0, 19), (3, 9)]),
    "xl_2_75": _arch(_XL, [(8, 9), (10, 10), (14, 9)], [(0, 9), (2, 19)]),
}


def sine_cosine_table(dim: int, grid: tuple[int, int]) -> Tensor:
    """Positions (1, rows * columns, dim) of a grid: the columns' sines, cosines, then those of the rows.

    Raises:
        UserError: unless 4 divides `dim`.
    """
    if dim % 4:
        raise UserError(f"a table of sines and cosines of rows and columns needs a width of 4n, not {dim}")
    rates = MAX_PERIOD ** (-torch.arange(dim // 4, dtype=torch.float64, device="cpu") / (dim // 4))
    rows, columns = (torch.arange(n, dtype=torch.float64, device="cpu")[:, None] * rates for n in grid)
    angles = torch.stack((columns.repeat(grid[0], 1), rows.repeat_interleave(grid[1], 0)), 1)
    return torch.cat((angles.sin(), angles.cos()), 2).flatten(1)[None].float()


def step_table(steps: Tensor, dim: int = FREQUENCIES) -> Tensor:
    """Steps (N,), whole or fractional, to cosines and sines (N, dim)."""
    rates = MAX_PERIOD ** (-torch.arange(dim // 2, dtype=torch.float32, device=steps.device) / (dim // 2))
    angles = steps[:, None].float() * rates
    return torch.cat((angles.cos(), angles.sin()), 1)


class TimestepEmbedder(nn.Module):
    """Steps (N,) to vectors (N, dim): `step_table`, then the two linear layers of `mlp`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """(N,) to (N, dim)."""
        return self.mlp(step_table(t).to(next(self.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """Classes (N,) to vectors (N, dim); in training some become the class after the last, which means none.

    Args:
        num_classes: classes.
        dim: width.
        dropout_rate: chance of that.
    """

    def __init__(self, num_classes: int, dim: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_classes, self.dropout_rate = num_classes, dropout_rate
        self.embedding_table = nn.Embedding(num_classes + (dropout_rate > 0), dim)

    def forward(self, y: Tensor) -> Tensor:
        """(N,) to (N, dim)."""
        if self.training and self.dropout_rate > 0:
            dropped = torch.rand(y.shape, device=y.device) < self.dropout_rate
            y = y.masked_fill(dropped, self.num_classes)
        return self.embedding_table(y)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens (N, T, C), scaled and shifted by vectors (N, C)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Attention and perceptron after norms without weights, modulated and gated by the condition.

    Args:
        dim: width C.
        attn: takes tokens (N, T, C) and keeps their shape.
        mlp_ratio: hidden width of the perceptron over C.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=lambda: nn.GELU(approximate="tanh"))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (N, T, C) and condition (N, C) to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, 1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Modulated norm and a linear layer to the values of a patch.

    Args:
        dim: width C.
        values: of a patch, in the order row, column, channel.
    """

    def __init__(self, dim: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.linear = nn.Linear(dim, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (N, T, C) and condition (N, C) to patches (N, T, values)."""
        shift, scale = self.adaLN_modulation(c).chunk(2, 1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class _Patches(nn.Module):
    """Latents (N, C_in, H, W) to tokens (N, T, C), row by row; parameters `proj`."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


@MODELS.register_module()
class MoHDiT(Trunk):
    """The network; `diffusion.sample` draws latents with it. Its training is not part of opsin.

    Args:
        arch: 's_2_90' … 'xl_2_75', or a mapping of `MoHDiTSettings`.
        with_cp, init_cfg: see `Trunk`.
        settings: see `MoHDiTSettings`.

    Raises:
        UserError: for an unknown arch or setting, or values that do not go together.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "s_2_75",
        *,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.settings = chosen = resolve_settings("MoHDiT", ARCHS, arch, settings)
        if chosen.input_size % chosen.patch_size:
            raise UserError(
                f"patches of {chosen.patch_size} do not divide latents of {chosen.input_size} of MoHDiT"
            )
        dim, side = chosen.dim, chosen.input_size // chosen.patch_size
        self.out_channels = chosen.in_channels * (2 if chosen.learn_variance else 1)
        self.x_embedder = _Patches(chosen.in_channels, dim, chosen.patch_size)
        self.t_embedder = TimestepEmbedder(dim)
        self.y_embedder = LabelEmbedder(chosen.num_classes, dim, chosen.class_dropout_rate)
        self.pos_embed = nn.Parameter(torch.empty(1, side * side, dim), requires_grad=False)
        heads = zip(*(chosen.per_block(name) for name in HEADS), strict=True)
        self.blocks = nn.ModuleList(
            DiTBlock(dim, make_attention(dim, *numbers, qk_norm=chosen.qk_norm), chosen.mlp_ratio)
            for numbers in heads
        )
        self.final_layer = FinalLayer(dim, chosen.patch_size**2 * self.out_channels)
        self._init_parameters()

    @torch.no_grad()
    def _init_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)  # type: ignore[arg-type]  # it has one
        for embedding in (self.y_embedder.embedding_table, self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(embedding.get_parameter("weight"), std=0.02)
        modulations = [block.get_submodule("adaLN_modulation.1") for block in self.blocks]
        for layer in (*modulations, self.final_layer.adaLN_modulation[1], self.final_layer.linear):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        side = self.settings.input_size // self.settings.patch_size
        self.pos_embed.copy_(sine_cosine_table(self.settings.dim, (side, side)))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """What the network tells of latents.

        Args:
            x: latents (N, in_channels, input_size, input_size).
            t: steps (N,).
            y: classes (N,); `num_classes` for none.

        Returns:
            (N, out_channels, input_size, input_size): the noise, then the variance's channels.
        """
        tokens = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = self.run(block, tokens, c)
        return self._unpatchify(self.final_layer(tokens, c))

    def forward_guided(self, x: Tensor, t: Tensor, y: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance of 2n latents: the first n with their classes, then the same with none.

        Args:
            x: latents (2n, in_channels, H, W); only the first n are read.
            t: steps (2n,).
            y: n classes, then n times `num_classes`.
            scale: w; in the first three channels both halves become none + w * (class - none), the others
                stay as they are predicted.
        """
        half = x[: len(x) // 2]
        out = self(torch.cat((half, half)), t, y)
        told, free = out[:, :GUIDED_CHANNELS].chunk(2)
        guided = free + scale * (told - free)
        return torch.cat((torch.cat((guided, guided)), out[:, GUIDED_CHANNELS:]), 1)

    def _unpatchify(self, patches: Tensor) -> Tensor:
        """(N, T, p * p * C) to (N, C, H, W)."""
        side, p = math.isqrt(patches.shape[1]), self.settings.patch_size
        x = patches.unflatten(2, (p, p, self.out_channels)).unflatten(1, (side, side))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Takes the load-balance loss of the last training forward: `loss_balance`, weighted."""
        return auxiliary_losses(self, self.settings.load_balance_weight)


def make_attention(
    dim: int,
    num_heads: int,
    shared_heads: int | None,
    routed_heads: int | None,
    head_dim: int | None,
    *,
    qk_norm: bool = False,
) -> MoHAttention | Attention:
    """A block's attention, with a mixture of heads unless `shared_heads` is None; see `MoHAttention`."""
    if shared_heads is None:
        return Attention(dim, num_heads)
    return MoHAttention(dim, num_heads, shared_heads, routed_heads or 0, qk_norm=qk_norm, head_dim=head_dim)
