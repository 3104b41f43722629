"""The blocks of HAT (see the package's docstring), on maps (B, H, W, C)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath
from opsin.restoration.layers.biased_attention import biased_attention

MASKED = (
    -100.0
)  # added to the score of a pair from different regions; the published value, not minus infinity


def to_channels_first(x: Tensor) -> Tensor:
    """(N, H, W, C) seen as (N, C, H, W), channels last in memory."""
    return x.permute(0, 3, 1, 2)


def to_channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) seen as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def partition(x: Tensor, window_size: int) -> Tensor:
    """Map (B, H, W, C) to windows (B, H/ws, W/ws, ws·ws, C), each in row-major order."""
    b, h, w, c = x.shape
    ws = window_size
    return x.view(b, h // ws, ws, w // ws, ws, c).transpose(2, 3).reshape(b, h // ws, w // ws, ws * ws, c)


def unpartition(windows: Tensor, window_size: int) -> Tensor:
    """Windows (B, H/ws, W/ws, ws·ws, C) back to the map (B, H, W, C)."""
    b, rows, cols, _, c = windows.shape
    ws = window_size
    x = windows.view(b, rows, cols, ws, ws, c).transpose(2, 3)
    return x.reshape(b, rows * ws, cols * ws, c)


def window_bias(table: Tensor, window_size: int) -> Tensor:
    """HAB's bias (1, heads, ws², ws²) from its table ((2ws-1)², heads): row by query minus key position."""
    ws = window_size
    # Of the reversed table, query i and key a read row ws - 1 - i + a.
    return _sliding(table.flip(0).t().reshape(-1, 2 * ws - 1, 2 * ws - 1), ws, ws)


def overlap_bias(table: Tensor, window_size: int, overlap_size: int) -> Tensor:
    """OCAB's bias (1, heads, ws², M²) from its table ((ws+M-1)², heads): row by key minus query position.

    The published index of the pair with the smallest difference is (2 - M)(ws + M), a negative number that
    counts from the end of the table, so the table is rolled to begin there.
    """
    ws, m = window_size, overlap_size
    side = ws + m - 1
    return _sliding(table.roll((m - 2) * (side + 1), dims=0).t().reshape(-1, side, side), ws, m)


def _sliding(table: Tensor, queries: int, keys: int) -> Tensor:
    """(heads, Q+K-1, Q+K-1) to (1, heads, Q², K²): query (i, j), key (a, b) read [Q-1-i+a, Q-1-j+b]."""
    rows = table.unfold(1, keys, 1).flip(1)  # (heads, i, Q+K-1, a); flipped while it is small
    bias = rows.unfold(2, keys, 1).flip(2)  # (heads, i, j, a, b)
    return bias.reshape(1, -1, queries**2, keys**2)


def region_masks(window_size: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Masks (3, ws², ws²) of shifted windows in the map's last row, last column, and corner."""
    row, col = (torch.arange(window_size, device=device) >= window_size - shift).repeat(2, 1)
    down = row[:, None].expand(window_size, window_size).flatten()
    right = col[None, :].expand(window_size, window_size).flatten()
    across_rows, across_cols = (band[:, None] != band[None, :] for band in (down, right))
    regions = torch.stack((across_rows, across_cols, across_rows | across_cols))
    return MASKED * regions.to(dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """Biased attention over windows.

    q (B, rows, cols, N, heads, d), k and v (B, rows, cols, M, heads, d), bias (1, heads, N, M); gives
    (B, rows, cols, N, heads·d).
    """
    b, rows, cols, n, heads, d = q.shape
    q, k, v = (x.flatten(0, 2).transpose(1, 2) for x in (q, k, v))
    out = biased_attention(q, k, v, bias, scale, dropout)
    return out.transpose(1, 2).reshape(b, rows, cols, n, heads * d)


class Mlp(nn.Module):
    """Linear, GELU, linear over the last axis."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to (…, C)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the averages of all channels over the map."""

    def __init__(self, channels: int, squeeze_factor: int) -> None:
        super().__init__()
        hidden = channels // squeeze_factor
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def gate(self, mean: Tensor) -> Tensor:
        """The factors (N, C, 1, 1) for the averages `mean` (N, C, 1, 1)."""
        return self.attention[1:](mean)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.attention(x)


class CAB(nn.Module):
    """Channel attention block: two 3x3 convolutions through a narrow middle, then channel attention."""

    def __init__(self, num_feat: int, compress_ratio: int = 3, squeeze_factor: int = 30) -> None:
        super().__init__()
        narrow = num_feat // compress_ratio
        self.cab = nn.Sequential(
            nn.Conv2d(num_feat, narrow, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow, num_feat, 3, padding=1),
            ChannelAttention(num_feat, squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.cab(x)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position.

    Args:
        dim: channels.
        window_size: side of a window.
        num_heads: heads; `dim` is a multiple of it.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; head_dim ** -0.5 if not given.
        attn_drop: dropout of attention weights.
        proj_drop: dropout of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(
        self, x: Tensor, masks: Tensor | None = None, last: tuple[bool, bool] = (True, True)
    ) -> Tensor:
        """Attention inside each window.

        Args:
            x: windows (B, rows, cols, N, C).
            masks: of shifted windows, as `region_masks` gives them; None if the map was not shifted.
            last: whether the last row and the last column of these windows are the map's last.

        Returns:
            (B, rows, cols, N, C)
        """
        b, rows, cols, n, c = x.shape
        qkv = self.qkv(x).view(b, rows, cols, n, 3, self.num_heads, c // self.num_heads)
        bias = window_bias(self.relative_position_bias_table, self.window_size)
        dropout = self.attn_drop if self.training else 0.0

        def attend_part(part: Tensor, bias: Tensor) -> Tensor:
            q, k, v = part.unbind(4)
            return attend(q, k, v, bias, self.scale, dropout)

        if masks is None:
            out = attend_part(qkv, bias)
        else:
            in_last_row, in_last_col, in_corner = (bias + masks[:, None].to(bias.dtype)).split(1)
            upper, lower = (
                strip.split((cols - last[1], int(last[1])), 2)
                for strip in qkv.split((rows - last[0], int(last[0])), 1)
            )
            upper = torch.cat((attend_part(upper[0], bias), attend_part(upper[1], in_last_col)), 2)
            lower = torch.cat((attend_part(lower[0], in_last_row), attend_part(lower[1], in_corner)), 2)
            out = torch.cat((upper, lower), 1)
        return self.proj_drop(self.proj(out))


class HAB(nn.Module):
    """Hybrid attention block: (shifted) window attention beside a convolution branch, then an MLP.

    Args:
        dim: channels.
        input_resolution: (H, W) that the network was designed for; if its smaller side is not larger than
            `window_size`, the window shrinks to that side and is not shifted, as published.
        num_heads: heads of the attention.
        window_size: side of a window.
        shift_size: how far the map is rolled before it is cut in windows.
        compress_ratio: `dim` over the channels inside the convolution branch.
        squeeze_factor: `dim` over the channels inside its channel attention.
        conv_scale: constant weight of the convolution branch; at 0 it is not computed.
        mlp_ratio: hidden channels of the MLP over `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; head_dim ** -0.5 if not given.
        drop: dropout of the projections.
        attn_drop: dropout of attention weights.
        drop_path: stochastic depth of the attention and of the MLP (not of the convolution branch).
    """

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if min(input_resolution) <= window_size:
            window_size, shift_size = min(input_resolution), 0
        self.window_size = window_size
        self.shift_size = shift_size
        self.conv_scale = conv_scale
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.conv_block = CAB(dim, compress_ratio, squeeze_factor)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape; H and W are multiples of the window."""
        n = self.norm1(x)
        attended = x + self.drop_path(self.attention(n))
        if self.conv_scale:
            attended = attended + self.conv_scale * to_channels_last(self.conv_block(to_channels_first(n)))
        return attended + self.drop_path(self.mlp(self.norm2(attended)))

    def attention(self, n: Tensor) -> Tensor:
        """The attention branch on the normed map (B, H, W, C)."""
        s = self.shift_size
        if not s:
            return self.attend_shifted(n)
        return self.attend_shifted(n.roll((-s, -s), (1, 2))).roll((s, s), (1, 2))

    def attend_shifted(self, n: Tensor, last: tuple[bool, bool] = (True, True)) -> Tensor:
        """Attention on the normed map after its shift, or on a window-aligned part (B, H, W, C) of it.

        Args:
            n: the map, or the part.
            last: whether the part holds the map's last row and last column of windows.
        """
        masks = (
            region_masks(self.window_size, self.shift_size, n.device, n.dtype) if self.shift_size else None
        )
        return unpartition(self.attn(partition(n, self.window_size), masks, last), self.window_size)


class OCAB(nn.Module):
    """Overlapping cross-attention block: queries of a window read keys and values of a larger one around it.

    Args:
        dim: channels.
        input_resolution: accepted as published; it has no effect.
        window_size: side of a query window.
        overlap_ratio: by how much of its side the window of keys and values is larger.
        num_heads: heads of the attention.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; head_dim ** -0.5 if not given.
        mlp_ratio: hidden channels of the MLP over `dim`.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        window_size: int,
        overlap_ratio: float,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        del input_resolution
        self.window_size = window_size
        self.overlap_win_size = window_size + int(window_size * overlap_ratio)
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        side = window_size + self.overlap_win_size - 1
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(side**2, num_heads))
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    @property
    def halo(self) -> int:
        """How many pixels beyond its own window a query sees on each side."""
        return (self.overlap_win_size - self.window_size) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape; H and W are multiples of the window."""
        c, halo = x.shape[-1], self.halo
        q, kv = self.qkv(self.norm1(x)).split((c, 2 * c), -1)
        return self.finish(x, q, F.pad(kv, (0, 0, halo, halo, halo, halo)))

    def finish(self, x: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Everything after queries, keys and values are known.

        Args:
            x: the block's input (B, H, W, C).
            q: queries (B, H, W, C).
            kv: keys and values (B, H + 2·halo, W + 2·halo, 2C), zero outside the image.
        """
        b, h, w, c = x.shape
        ws, m, heads = self.window_size, self.overlap_win_size, self.num_heads
        q = partition(q, ws).unflatten(-1, (heads, c // heads))
        windows = kv.unfold(1, m, ws).unfold(2, m, ws)  # (B, rows, cols, 2C, M, M), no copy yet
        windows = windows.permute(3, 0, 1, 2, 4, 5).unflatten(0, (2, heads, c // heads))
        k, v = windows.permute(0, 3, 4, 5, 6, 7, 1, 2).reshape(
            2, b, h // ws, w // ws, m * m, heads, c // heads
        )
        bias = overlap_bias(self.relative_position_bias_table, ws, m)
        x = x + self.proj(unpartition(attend(q, k, v, bias, self.scale), ws))
        return x + self.mlp(self.norm2(x))


class ResidualGroup(nn.Module):
    """The blocks of a group: `depth` HABs, every second one shifted, then one OCAB."""

    def __init__(self, blocks: Iterable[HAB], overlap_attn: OCAB) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.overlap_attn = overlap_attn

    def __iter__(self) -> Iterator[HAB | OCAB]:
        yield from cast("Iterable[HAB]", self.blocks)
        yield self.overlap_attn


class RHAG(nn.Module):
    """Residual hybrid attention group: HABs, an OCAB, a 3x3 convolution, and the group's input added.

    Args:
        dim: channels.
        input_resolution: (H, W) that the network was designed for (see `HAB`).
        depth: number of HABs.
        num_heads: heads of every attention.
        window_size: side of a window; odd blocks shift by half of it.
        overlap_ratio: of the OCAB.
        mlp_ratio: hidden channels of the MLPs over `dim`.
        drop_path: rate of each HAB, or one for all.
        resi_connection: '1conv', or 'identity' for no convolution.
        block: further arguments of every HAB.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        depth: int,
        num_heads: int,
        window_size: int,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_path: float | Sequence[float] = 0.0,
        resi_connection: str = "1conv",
        **block: Any,
    ) -> None:
        super().__init__()
        rates = [drop_path] * depth if isinstance(drop_path, int | float) else list(drop_path)
        self.residual_group = ResidualGroup(
            (
                HAB(
                    dim,
                    input_resolution,
                    num_heads,
                    window_size,
                    shift_size=i % 2 * (window_size // 2),
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop_path=rates[i],
                    **block,
                )
                for i in range(depth)
            ),
            OCAB(dim, input_resolution, window_size, overlap_ratio, num_heads, qkv_bias, qk_scale, mlp_ratio),
        )
        self.conv = residual_convolution(dim, resi_connection)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        y = x
        for block in self.residual_group:
            y = block(y)
        return x + to_channels_last(self.conv(to_channels_first(y)))


def residual_convolution(dim: int, resi_connection: str) -> nn.Module:
    """The layer before a long residual connection: a 3x3 convolution ('1conv') or nothing ('identity')."""
    if resi_connection not in ("1conv", "identity"):
        raise ValueError(f"resi_connection must be '1conv' or 'identity', got {resi_connection!r}")
    return nn.Conv2d(dim, dim, 3, padding=1) if resi_connection == "1conv" else nn.Identity()


class PatchEmbed(nn.Module):
    """What is left of patch embedding at patch size 1: the norm."""

    def __init__(self, dim: int, patch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if patch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        return self.norm(x)
