"""Neighborhood attention by its definition: the keys and values of every query are gathered.

Memory grows with the number of queries, times that of the keys in a window, times the width of a head.
"""

from __future__ import annotations

from torch import Tensor

from opsin.core.ops.neighborhood_attention.arguments import Attention
from opsin.core.ops.neighborhood_attention.windows import neighbours


def attend(given: Attention) -> Tensor:
    """The attention (B, heads, *sizes, D), of q's type."""
    axes = len(given.sizes)
    seen: list[slice | Tensor] = [slice(None), slice(None)]  # of batch and heads all
    entries: list[slice | Tensor] = [slice(None)]
    for axis, window in enumerate(zip(given.sizes, given.kernel_size, given.dilation, strict=True)):
        shape = [1] * (2 * axes)  # every axis's positions, then every axis's windows
        shape[axis], shape[axes + axis] = window[:2]
        for found, table in zip((seen, entries), neighbours(*window, given.q.device), strict=True):
            found.append(table.view(shape))
    q, k, v = (x.to(given.kind) for x in given[:3])
    keys, values = (x[tuple(seen)].flatten(2 + axes, 1 + 2 * axes) for x in (k, v))
    scores = (keys @ (given.scale * q)[..., None])[..., 0]
    if given.rpb is not None:
        scores = scores + given.rpb.to(given.kind)[tuple(entries)].flatten(1 + axes)
    return (scores.softmax(-1)[..., None, :] @ values)[..., 0, :].to(given.q.dtype)
