"""Varied-size window attention: keys and values come from windows that the features place and size.

VSA: Learning Varied-Size Window Attention in Vision Transformers (arXiv 2204.08446, ECCV 2022). Letters: a
map of H x W is padded with zeros to H' x W', windows of w x w pixels, C channels in, D out.

Queries stay in the default windows. For every window and head a regressor reads the window's mean and gives
a scale s and an offset o, horizontal and vertical; the window of keys and values is the default one, sized
(1 + s) about its centre and moved by o, sampled bilinearly. Windows of heads differ and overlap, so none is
shifted between blocks.

What a naive reading gets wrong: the horizontal number comes first; offsets are divided by the number of
windows of the unpadded map (rounded down), scales are not; `qkv` runs before the padding, so that padding is
exactly zero, but the regressors' means count zeros; there is no mask, so places outside of the map take part
with the logit of their bias, which goes by the place inside the window though keys were moved; logits are
scaled by the heads' width of the input, C, even where D differs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.biased_attention import biased_attention
from opsin.core.layers.pointwise_conv import PointwiseConv
from opsin.core.layers.relative_bias import relative_position_index
from opsin.core.layers.windows import partition, reverse
from opsin.registry import MODELS

Sides = tuple[int, int]
Padding = tuple[int, int, int, int]  # left, right, top, bottom


@MODELS.register_module()
class VSAWindowAttention(nn.Module):
    """Attention of a map in windows of learned size and place; a drop-in for window attention.

    The padding and the divisors are the two things in which the authors' detector differs from their
    classifier.

    Args:
        dim: channels C.
        num_heads: heads; divides `dim` and `out_dim`.
        out_dim: channels D of the result; None for C.
        window_size: side w of a default window.
        qkv_bias: whether queries, keys and values have a bias.
        centred_padding: whether a map that windows don't fit gets half of its padding at top and left
            (detector), or all of it at bottom and right (classifier).
        swapped_divisors: whether horizontal offsets are divided by the windows of a column and vertical ones
            by those of a row (detector), or each by its own (classifier); the same on square maps.

    Raises:
        UserError: if `num_heads` does not divide a width, or `window_size` is less than 1.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        out_dim: int | None = None,
        window_size: int = 7,
        qkv_bias: bool = True,
        centred_padding: bool = False,
        swapped_divisors: bool = False,
    ) -> None:
        super().__init__()
        out_dim = dim if out_dim is None else out_dim
        for width in (dim, out_dim):
            if num_heads < 1 or width % num_heads:
                raise UserError(f"{num_heads} heads of VSA do not divide a width of {width}")
        if window_size < 1:
            raise UserError(f"window_size {window_size} of VSA must be at least 1")
        self.num_heads, self.out_dim, self.window_size = num_heads, out_dim, window_size
        self.centred_padding, self.swapped_divisors = centred_padding, swapped_divisors
        self.scale = (dim // num_heads) ** -0.5
        self.sampling_offsets = self._regressor(dim)
        self.sampling_scales = self._regressor(dim)
        self.qkv = PointwiseConv(dim, 3 * out_dim, bias=qkv_bias)
        self.proj = PointwiseConv(out_dim, out_dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_position_index((window_size, window_size))
        self.register_buffer("relative_position_index", index, persistent=False)

    def _regressor(self, dim: int) -> nn.Sequential:
        """Padded map (B, C, H', W') to a horizontal and a vertical number (B, 2 * heads, H' / w, W' / w)."""
        return nn.Sequential(
            nn.AvgPool2d(self.window_size),
            nn.LeakyReLU(0.01),
            nn.Conv2d(dim, 2 * self.num_heads, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H, W)."""
        height, width = x.shape[2:]
        padding = self._padding(height, width)
        grid = self.sampling_grid(_pad(x, padding), (height, width))
        qkv = _pad(self.qkv(x), padding)
        q, kv = qkv.split((self.out_dim, 2 * self.out_dim), 1)
        k, v = self._sampled(kv, grid)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        out = biased_attention(self._windows(q), k, v, bias, self.scale).transpose(1, 2).flatten(2)
        window = (self.window_size, self.window_size)
        out = reverse(out, window, (qkv.shape[2], qkv.shape[3])).permute(0, 3, 1, 2)
        left, _, top, _ = padding
        return self.proj(out[:, :, top : top + height, left : left + width])

    def _padding(self, height: int, width: int) -> Padding:
        """Columns at the left and right, rows at the top and bottom."""
        below, right = -height % self.window_size, -width % self.window_size
        top, left = (below // 2, right // 2) if self.centred_padding else (0, 0)
        return left, right - left, top, below - top

    def sampling_grid(self, padded: Tensor, size: Sides) -> Tensor:
        """Where keys and values are read, as `torch.nn.functional.grid_sample` counts with aligned corners.

        Args:
            padded: the padded map (B, C, H', W').
            size: rows and columns (H, W) before padding.

        Returns:
            (B * heads, windows, w * w, 2) of horizontal and vertical places; -1 and 1 are the centres of the
            padded map's first and last pixels.
        """
        means = self.sampling_offsets[:2](padded)  # the two regressors differ in their last layer only
        offsets, scales = (
            _exact(regressor[2](means)).unflatten(1, (self.num_heads, 2)).flatten(0, 1).unbind(1)
            for regressor in (self.sampling_offsets, self.sampling_scales)
        )
        rows, columns = (max(1, side // self.window_size) for side in size)
        if self.swapped_divisors:
            rows, columns = columns, rows
        x = self._places(scales[0], offsets[0] / columns)
        y = self._places(scales[1].mT, offsets[1].mT / rows).transpose(1, 2)
        shape = (*x.shape, self.window_size)
        grid = torch.stack((x[..., None, :].expand(shape), y[..., None].expand(shape)), -1)
        return grid.flatten(3, 4).flatten(1, 2)

    def _places(self, scales: Tensor, offsets: Tensor) -> Tensor:
        """Places along one axis, its n windows in the last dimension of (B * heads, m, n); (…, n, w)."""
        windows = scales.shape[-1]
        side = windows * self.window_size
        places = torch.linspace(-1, 1, side, dtype=scales.dtype, device=scales.device)
        pixel = 2 / max(1, side - 1)
        inside = torch.arange(self.window_size, dtype=scales.dtype, device=scales.device)
        from_centre = (inside - (self.window_size - 1) / 2) * pixel
        return places.view(windows, -1) + from_centre * scales[..., None] + offsets[..., None]

    def _sampled(self, kv: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Padded keys and values (B, 2 * D, H', W') to those of every window, (B * windows, heads, N, d)."""
        maps = kv.unflatten(1, (2, self.num_heads, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        sampled = F.grid_sample(_exact(maps), grid, align_corners=True)  # B * heads, 2 * d, windows, N
        sampled = sampled.to(kv.dtype).unflatten(0, (-1, self.num_heads)).unflatten(2, (2, -1))
        # contiguous, for torch's fused attention
        k, v = sampled.permute(2, 0, 4, 1, 5, 3).contiguous().flatten(1, 2)
        return k, v

    def _windows(self, q: Tensor) -> Tensor:
        """Padded queries (B, D, H', W') to those of every window, (B * windows, heads, N, d)."""
        windows = partition(q.permute(0, 2, 3, 1), (self.window_size, self.window_size))
        return windows.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def _pad(x: Tensor, padding: Padding) -> Tensor:
    """The map with zeros around; itself where there are none to add, which torch would copy."""
    return F.pad(x, padding) if any(padding) else x


def _exact(x: Tensor) -> Tensor:
    """In float32 at least: half precision cannot tell places of neighbouring pixels apart."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
