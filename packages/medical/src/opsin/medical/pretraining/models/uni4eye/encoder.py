"""The encoder of Uni4Eye: one vision transformer that takes pictures and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp

EPS = 1e-6
Positions = Literal["sincos", "zeros"]


class UnifiedPatchEmbed(nn.Module):
    """Cuts a picture into squares or a volume into cubes, and projects each kind by its own convolution.

    Args:
        patch_size: side of a square or cube, in pixels or voxels.
        in_channels: channels of a picture.
        volume_channels: channels of a volume.
        dim: width of the tokens.
    """

    def __init__(self, patch_size: int, in_channels: int, volume_channels: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj2 = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.proj3 = nn.Conv3d(volume_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, A, H, W) to tokens (B, N, dim) in raster order.

        Raises:
            UserError: if a side is no multiple of the patch size, or there are other dimensions.
        """
        if x.ndim not in (4, 5) or any(side % self.patch_size for side in x.shape[2:]):
            raise UserError(
                f"Uni4Eye cannot cut {list(x.shape)} into patches of {self.patch_size}",
                "give pictures (B, C, H, W) or volumes (B, C, A, H, W) whose sides are multiples of it",
            )
        projected = self.proj2(x) if x.ndim == 4 else self.proj3(x)
        return projected.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Norm and attention, norm and perceptron, both residual.

    Args:
        dim: width C.
        heads: heads of the attention.
        mlp_ratio: hidden width of the perceptron / C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def grids(size: int, patch_size: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Tokens along the sides of a picture (s, s) and of a volume (s, s / 2, s).

    Raises:
        UserError: if a side is no multiple of the patch size.
    """
    if size % (2 * patch_size):
        raise UserError(f"size {size} of Uni4Eye is no multiple of {2 * patch_size}")
    side = size // patch_size
    return (side, side), (side, side // 2, side)


def position_table(grid: Sequence[int], dim: int, positions: Positions) -> nn.Parameter:
    """A fixed table (1, 1 + tokens, dim), the class token's row first.

    'sincos': each axis gets an equal, even share of the channels (what remains stays 0): sines, then cosines
    of position / 10000^(i / n). 'zeros': what the released code trains with, its initialisation switched off.
    """
    table = torch.zeros(1, 1 + math.prod(grid), dim)
    if positions == "sincos":
        share = dim // len(grid) // 2
        rates = 1 / 10000 ** (torch.arange(share) / share)
        axes = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
        for number, axis in enumerate(axes):
            angles = axis.flatten()[:, None] * rates
            first = 2 * share * number
            table[0, 1:, first : first + 2 * share] = torch.cat([angles.sin(), angles.cos()], 1)
    return nn.Parameter(table, requires_grad=False)


def resize_positions(table: Tensor, grid: Sequence[int], new_grid: Sequence[int]) -> Tensor:
    """The table (1, 1 + tokens, d) of one grid for another of as many axes, by (tri)linear interpolation."""
    if tuple(grid) == tuple(new_grid):
        return table
    head, rows = table[:, :1], table[:, 1:].transpose(1, 2).unflatten(2, tuple(grid))
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    resized = F.interpolate(rows, size=tuple(new_grid), mode=mode, align_corners=False)
    return torch.cat([head, resized.flatten(2).transpose(1, 2)], 1)


class Uni4EyeEncoder(nn.Module):
    """Patch embedding of either kind, positions, a class token, transformer blocks, norm.

    Args:
        size: side s of the pictures (s, s) and volumes (s, s / 2, s) that the position tables are for.
        patch_size: side of a patch.
        in_channels: channels of a picture.
        volume_channels: channels of a volume.
        dim: width.
        depth: blocks.
        heads: heads of a block.
        mlp_ratio: hidden width of the perceptrons / dim.
        drop_path_rate: of the last block; it grows linearly from 0.
        positions: see `position_table`.
    """

    def __init__(
        self,
        size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        volume_channels: int = 1,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        positions: Positions = "sincos",
    ) -> None:
        super().__init__()
        self.patch_size, self.dim = patch_size, dim
        self.grids = grids(size, patch_size)
        self.patch_embed = UnifiedPatchEmbed(patch_size, in_channels, volume_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed2, self.pos_embed3 = (position_table(grid, dim, positions) for grid in self.grids)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def grid_of(self, x: Tensor) -> tuple[int, ...]:
        """Tokens along each side of a picture or volume."""
        return tuple(side // self.patch_size for side in x.shape[2:])

    def positions_for(self, x: Tensor) -> Tensor:
        """The position table of the input's kind, at its size, (1, 1 + N, dim)."""
        volume = x.ndim == 5
        table = self.pos_embed3 if volume else self.pos_embed2
        return resize_positions(table, self.grids[volume], self.grid_of(x))

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) or volumes (B, C, A, H, W) to tokens, the class token first.

        Args:
            x: the input.
            kept: (B, K) indices of the tokens that are seen; None: all.

        Returns:
            (B, 1 + K, dim).
        """
        tokens, table = self.patch_embed(x), self.positions_for(x)
        tokens = tokens + table[:, 1:]
        if kept is not None:
            tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        head = (self.cls_token + table[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([head, tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
