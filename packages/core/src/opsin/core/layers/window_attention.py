"""Attention inside windows with a relative position bias (Swin Transformer, arXiv 2103.14030)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.layers.attention import Attention
from opsin.core.layers.biased_attention import biased_attention
from opsin.core.layers.relative_bias import relative_position_index
from opsin.core.layers.weighted_attention import weighted_attention


class WindowAttention(Attention):
    """Attention of the tokens of each window; parameters `qkv`, `proj` and `relative_position_bias_table`.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        window: rows and columns (h, w) of a window, N = h * w tokens.
        qkv_bias: whether `qkv` has a bias.
        scale: factor on the logits; (C / heads) ** -0.5 if None.

    Raises:
        ValueError: if `num_heads` does not divide `dim`.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, scale=scale)
        self.window = window
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_position_index(window)
        self.register_buffer("relative_position_index", index, persistent=False)

    def position_bias(self) -> Tensor:
        """What is added to the logits for positions, (heads, N, N)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """(B * windows, N, C), windows of an image together, to the same shape.

        `weights`, broadcast to (B * windows, heads, N, N), multiply the logits before position bias and
        `mask` (windows, N, N) are added to those of all heads.
        """
        bias = self.position_bias()[None]
        if mask is not None:
            bias = bias + mask[:, None]
            bias = bias.expand(len(x) // len(mask), -1, -1, -1, -1).flatten(0, 1)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        if weights is None:
            y = biased_attention(q, k, v, bias, scale)
        else:
            y = weighted_attention(q, k, v, weights, scale, bias)
        return self.proj(y.transpose(1, 2).flatten(2))
