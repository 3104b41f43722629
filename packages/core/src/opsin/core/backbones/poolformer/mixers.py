"""Token mixers: what a MetaFormer block puts between its first norm and its residual."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.layers.attention import Attention
from opsin.registry import MODELS

Grid = Sequence[int]  # height and width of a map
Mixer = str | Mapping[str, Any]


class Pooling(nn.Module):
    """Mean over a window minus the input (the block's residual adds it again); no parameters.

    Args:
        dim: channels, which it does not depend on.
        pool_size: side of the window, odd.
    """

    def __init__(self, dim: int, pool_size: int = 3) -> None:
        super().__init__()
        self.pool_size = pool_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        side = self.pool_size
        return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False) - x


class AttentionMixer(Attention):
    """Self-attention over all pixels.

    Args:
        dim: channels.
        head_dim: channels of a head.
        qkv_bias: whether `qkv` has a bias.

    Raises:
        UserError: if `head_dim` does not divide `dim`.
    """

    def __init__(self, dim: int, head_dim: int = 32, qkv_bias: bool = False) -> None:
        if dim % head_dim:
            raise UserError(f"heads of {head_dim} channels do not divide a width of {dim}", "set head_dim")
        super().__init__(dim, dim // head_dim, qkv_bias=qkv_bias)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape."""
        tokens = super().forward(x.flatten(2).transpose(1, 2), bias)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class SpatialFc(nn.Module):
    """A linear layer without bias over the pixels of a map of one size, the same for every channel.

    Args:
        dim: channels, which it does not depend on.
        spatial_shape: height and width of the map.
    """

    def __init__(self, dim: int, spatial_shape: Grid) -> None:
        super().__init__()
        self.spatial_shape = tuple(spatial_shape)
        pixels = math.prod(spatial_shape)
        self.fc = nn.Linear(pixels, pixels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape.

        Raises:
            UserError: for a map of another size.
        """
        _check_size("spatial perceptron", self.spatial_shape, x)
        return self.fc(x.flatten(2)).view(x.shape)


class PositionTable(nn.Module):
    """A learned table, zero at first, that is added to maps of one size."""

    def __init__(self, dim: int, spatial_shape: Grid) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *spatial_shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape.

        Raises:
            UserError: for a map of another size.
        """
        _check_size("position table", self.pos_embed.shape[2:], x)
        return x + self.pos_embed


def _check_size(part: str, size: Sequence[int], x: Tensor) -> None:
    if tuple(x.shape[2:]) != tuple(size):
        raise UserError(
            f"MetaFormer's {part} is for maps of {size[0]}x{size[1]}, not {x.shape[2]}x{x.shape[3]}",
            "give images of the size it was built for (224x224 for the published hybrids)",
        )


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity,
    "pooling": Pooling,
    "attention": AttentionMixer,
    "spatial_fc": SpatialFc,
}


def build_mixer(mixer: Mixer, dim: int) -> nn.Module:
    """A token mixer: a name in `MIXERS`, or dict(type=…, …) of one of these or of a registered module.

    Args:
        mixer: what to build; its class takes `dim` and maps (N, C, H, W) to the same shape.
        dim: channels.

    Raises:
        UserError: for an unknown type.
    """
    settings = {"type": mixer} if isinstance(mixer, str) else dict(mixer)
    kind = settings.pop("type")
    if kind in MIXERS:
        return MIXERS[kind](dim, **settings)
    if MODELS.get(kind) is None:
        raise unknown("token mixer", kind, MIXERS)
    return MODELS.build({"type": kind, "dim": dim, **settings})
