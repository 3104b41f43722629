"""Softmax attention whose logits are multiplied by weights (a mask of distances, for one).

`torch.nn.functional.scaled_dot_product_attention` adds to logits and cannot multiply them, so the formula is
written out. A weight of 0 does not shut a pair out: its logit is 0, and its share exp(0) / sum.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_attention(
    q: Tensor, k: Tensor, v: Tensor, weights: Tensor, scale: float, bias: Tensor | None = None
) -> Tensor:
    """softmax(weights * scale q k^T + bias) v.

    Args:
        q: queries (B, heads, N, d).
        k: keys (B, heads, M, d).
        v: values (B, heads, M, e).
        weights: what multiplies the logits, broadcast to (B, heads, N, M).
        scale: factor on the logits.
        bias: what is added to the weighted logits, broadcast to (B, heads, N, M).
    """
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits * weights if bias is None else torch.addcmul(bias, logits, weights)
    return logits.softmax(-1) @ v
