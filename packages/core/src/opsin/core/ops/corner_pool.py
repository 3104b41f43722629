"""Corner pooling: the running maximum of a map from one side.

CornerNet, arXiv:1808.01244. `top` looks down from each cell (maximum over all rows from it on), `bottom`
looks up, `left` looks right, `right` looks left. (B, C, H, W) in and out. A running maximum of PyTorch, so it
is its own reference.
"""

from __future__ import annotations

from torch import Tensor

DIRECTIONS = {
    "top": (2, True),
    "bottom": (2, False),
    "left": (3, True),
    "right": (3, False),
}  # axis, from its end


def corner_pool(x: Tensor, mode: str) -> Tensor:
    """Running maximum of `x` (B, C, H, W) in the direction `mode` (top, bottom, left, right).

    Raises:
        ValueError: if `mode` is none of these.
    """
    if mode not in DIRECTIONS:
        raise ValueError(f"corner_pool: mode {mode!r} is none of {', '.join(DIRECTIONS)}")
    axis, from_end = DIRECTIONS[mode]
    return x.flip(axis).cummax(axis).values.flip(axis) if from_end else x.cummax(axis).values
