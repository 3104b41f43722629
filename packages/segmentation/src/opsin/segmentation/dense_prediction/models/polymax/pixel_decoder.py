"""kMaX-DeepLab's pixel decoder: four maps of a backbone become four finer ones, coarsest first.

Letters: B images, h heads, N places on an axis, C channels.

What a naive reading misses: blocks are pre-activation, so the maps returned have no activation; the relative
tables are indexed by key minus query, centred at 254 whatever N is; the fuse aligns corners on both axes if
the *width* of the coarse map is odd.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.segmentation.dense_prediction.models.polymax.layers import ConvBN, batch_norm1d, batch_norm2d

LONGEST_AXIS = 255  # that the relative tables reach
NUM_HEADS = 8
EXPANSION = 4  # width of a stage's map in units of its `dim`


class RelativePositions(nn.Module):
    """A vector for every distance between two places; parameters `_embeddings.weight`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._embeddings = nn.Embedding(2 * LONGEST_AXIS - 1, channels)
        nn.init.trunc_normal_(self._embeddings.weight, std=1.0)

    def forward(self, length: int) -> Tensor:
        """(N, N, C): row i, column j holds the vector of j - i.

        Raises:
            UserError: if the axis is longer than the tables reach.
        """
        if length > LONGEST_AXIS:
            raise UserError(
                f"a map of {length} cells on a side is longer than the axial attention's {LONGEST_AXIS}",
                "use a smaller picture, or tiles",
            )
        places = torch.arange(length, device=self._embeddings.weight.device)
        vectors: Tensor = self._embeddings(places - places[:, None] + LONGEST_AXIS - 1)
        return vectors


class AxisAttention(nn.Module):
    """Self-attention along one axis with relative positions in queries, keys and values.

    Args:
        channels: in.
        key_depth: channels of all heads' keys.
        value_depth: channels of all heads' values, and out.
    """

    def __init__(self, channels: int, key_depth: int, value_depth: int) -> None:
        super().__init__()
        self.depths = (key_depth, key_depth, value_depth)
        std = channels**-0.5
        self.qkv_transform = ConvBN(channels, sum(self.depths), flat=True, norm=False, std=std)
        self._query_rpe = RelativePositions(key_depth // NUM_HEADS)
        self._key_rpe = RelativePositions(key_depth // NUM_HEADS)
        self._value_rpe = RelativePositions(value_depth // NUM_HEADS)
        self._batch_norm_qkv = batch_norm1d(sum(self.depths))
        self._batch_norm_similarity = batch_norm2d(3 * NUM_HEADS)
        self._batch_norm_retrieved_output = batch_norm1d(2 * value_depth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) to (B, value_depth, N)."""
        length = x.shape[-1]
        qkv = self._batch_norm_qkv(self.qkv_transform(x))
        q, k, v = (part.unflatten(1, (NUM_HEADS, -1)) for part in qkv.split(self.depths, 1))
        similarity = torch.cat(
            [
                torch.einsum("bhdi,bhdj->bhij", q, k),
                torch.einsum("bhdi,ijd->bhij", q, self._query_rpe(length)),
                torch.einsum("bhdj,ijd->bhij", k, self._key_rpe(length)),
            ],
            1,
        )
        weights = self._batch_norm_similarity(similarity).unflatten(1, (3, NUM_HEADS)).sum(1).softmax(-1)
        content = torch.einsum("bhij,bhdj->bhdi", weights, v).flatten(1, 2)
        position = torch.einsum("bhij,ijd->bhdi", weights, self._value_rpe(length)).flatten(1, 2)
        retrieved = self._batch_norm_retrieved_output(torch.cat([content, position], 1))
        return retrieved.unflatten(1, (2, -1)).sum(1)


class AxialAttention(nn.Module):
    """Attention down the columns, then along the rows; `_height_axis` and `_width_axis`."""

    def __init__(self, channels: int, key_depth: int, value_depth: int) -> None:
        super().__init__()
        self._height_axis = AxisAttention(channels, key_depth, value_depth)
        self._width_axis = AxisAttention(value_depth, key_depth, value_depth)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, value_depth, H, W)."""
        batch, _, height, width = x.shape
        columns = self._height_axis(x.permute(0, 3, 1, 2).flatten(0, 1))  # (B W, C, H)
        rows = columns.unflatten(0, (batch, width)).permute(0, 3, 2, 1).flatten(0, 1)  # (B H, C, W)
        return self._width_axis(rows).unflatten(0, (batch, height)).transpose(1, 2)


class Block(nn.Module):
    """Residual block, pre-activation: 1x1, a core, 1x1 to 4 · dim.

    Args:
        channels: in.
        dim: the stage's.
        axial: the core is axial attention over 2 · dim channels instead of a 3x3 convolution over dim.
    """

    def __init__(self, channels: int, dim: int, *, axial: bool) -> None:
        super().__init__()
        width = 2 * dim if axial else dim
        self._conv1_bn_act = ConvBN(channels, width, act=True)
        if axial:
            self._attention = AxialAttention(width, dim, width)
        else:
            self._conv2_bn_act = ConvBN(width, width, 3, act=True)
        self.axial = axial
        self._conv3_bn = ConvBN(width, EXPANSION * dim, scale=0.0)
        if channels != EXPANSION * dim:
            self._shortcut = ConvBN(channels, EXPANSION * dim)
        self.resized = channels != EXPANSION * dim

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 4 · dim, H, W)."""
        x = F.gelu(x)
        shortcut = self._shortcut(x) if self.resized else x
        x = self._conv1_bn_act(x)
        x = F.gelu(self._attention(x)) if self.axial else self._conv2_bn_act(x)
        return shortcut + self._conv3_bn(x)


class Stage(nn.Module):
    """Blocks of one size; parameters `_blocks`."""

    def __init__(self, channels: int, dim: int, blocks: int, *, axial: bool) -> None:
        super().__init__()
        widths = [channels, *[EXPANSION * dim] * (blocks - 1)]
        self._blocks = nn.Sequential(*(Block(width, dim, axial=axial) for width in widths))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 4 · dim, H, W)."""
        return self._blocks(x)


class ResizedFuse(nn.Module):
    """Sum of a coarse and a fine map at `dim` channels and the fine map's size."""

    def __init__(self, low: int, high: int, dim: int) -> None:
        super().__init__()
        if low != dim:
            self._conv_bn_low = ConvBN(low, dim)
        if high != dim:
            self._conv_bn_high = ConvBN(high, dim)
        self.changes = (low != dim, high != dim)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Coarse (B, low, h, w) and fine (B, high, H, W) to (B, dim, H, W)."""
        if self.changes[0]:
            low = self._conv_bn_low(F.gelu(low))
        if self.changes[1]:
            high = self._conv_bn_high(F.gelu(high))
        aligned = low.shape[-1] % 2 == 1
        return high + F.interpolate(low, high.shape[-2:], mode="bilinear", align_corners=aligned)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PixelDecoder(nn.Module):
    """Four stages from coarse to fine.

    Args:
        in_channels: of the backbone's maps, finest first (strides 4, 8, 16, 32).
        dims: of the stages, coarsest first; a stage gives 4 · dim channels.
        layers: blocks of each stage.
        axial: which stages attend along the axes; the others convolve.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        dims: Sequence[int] = (512, 256, 128, 64),
        layers: Sequence[int] = (1, 5, 1, 1),
        axial: Sequence[bool] = (True, True, False, False),
    ) -> None:
        super().__init__()
        coarse_first = list(in_channels)[::-1]
        self.out_channels = [EXPANSION * dim for dim in dims]
        self._in_norms = nn.ModuleList(ChannelNorm(channels, eps=1e-6) for channels in coarse_first)
        widths = [coarse_first[0], *dims[1:]]
        self._stages = nn.ModuleList(
            Stage(width, dim, blocks, axial=attends)
            for width, dim, blocks, attends in zip(widths, dims, layers, axial, strict=True)
        )
        self._resized_fuses = nn.ModuleList(
            ResizedFuse(low, high, dim)
            for low, high, dim in zip(self.out_channels, coarse_first[1:], dims[1:], strict=False)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, finest first, to those of strides 32, 16, 8, 4, (B, 4 · dim, H, W) each."""
        coarse, *finer = [norm(x) for norm, x in zip(self._in_norms, reversed(maps), strict=True)]
        out = [self._stages[0](coarse)]
        for fuse, stage, high in zip(self._resized_fuses, self._stages[1:], finer, strict=True):
            out.append(stage(fuse(out[-1], high)))
        return out
