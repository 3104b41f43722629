"""Softplus in Triton, which has no log1p."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def fold(x):
    """What softplus has above max(x, 0): log(1 + exp(-|x|)), the rounding of 1 + e mended as log1p does."""
    e = tl.exp(-tl.abs(x))
    near = 1.0 + e
    return tl.where(near == 1.0, e, tl.log(near) * e / (near - 1.0))


@triton.jit
def softplus(x):
    """log(1 + exp(x))."""
    return tl.maximum(x, 0.0) + fold(x)
