"""Floating-point operations of opsin's ops, in the form that `torch.utils.flop_counter` asks for.

A formula gets the shapes of an op's tensors in place of the tensors, and `out_shape`. A product and a sum are
two operations, an exponential is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Shape = Sequence[int]
Formula = Callable[..., int]


def selective_scan(u: Shape, delta: Shape, A: Shape, *_: Any, **__: Any) -> int:
    """Nine for each state and step."""
    batch, channels, length = u
    return 9 * batch * channels * length * A[1]


def wkv(w: Shape, u: Shape, k: Shape, *_: Any, **__: Any) -> int:
    """Two exponentials, four products and four sums for each token and channel."""
    return 10 * math.prod(k)


def bi_wkv(w: Shape, u: Shape, k: Shape, *_: Any, **__: Any) -> int:
    """As `wkv`, both ways."""
    return 20 * math.prod(k)


def neighborhood_attention(
    q: Shape, k: Shape, v: Shape, rpb: Shape | None, kernel_size: Sequence[int], *_: Any, **__: Any
) -> int:
    """A score and a weighted sum for each query and each of its neighbours."""
    return 4 * math.prod(q) * math.prod(kernel_size)


def ms_deform_attn(value: Shape, shapes: Shape, places: Shape, *_: Any, **__: Any) -> int:
    """Four corners and a weight for each sample and channel of a head."""
    return 10 * math.prod(places[:-1]) * value[-1]


def modulated_deform_conv(
    x: Shape,
    offset: Shape,
    mask: Shape | None,
    weight: Shape,
    *_: Any,
    out_shape: Shape,
    **__: Any,
) -> int:
    """The convolution, and four corners of each sample."""
    places = out_shape[0] * math.prod(out_shape[2:])
    samples = places * x[1] * math.prod(weight[2:])
    return 2 * math.prod(out_shape) * math.prod(weight[1:]) + 8 * samples


def formulas() -> dict[Any, Formula]:
    """Op to formula, for `FlopCounterMode(custom_mapping=…)`."""
    import opsin.core.ops.modulated_deform_conv
    import opsin.core.ops.ms_deform_attn
    import opsin.core.ops.neighborhood_attention
    import opsin.core.ops.selective_scan
    import opsin.core.ops.wkv  # noqa: F401  # all five: importing an op registers it

    counted = (selective_scan, wkv, bi_wkv, neighborhood_attention, ms_deform_attn, modulated_deform_conv)
    return {getattr(torch.ops.opsin, formula.__name__): formula for formula in counted}
