"""Neighborhood attention: each position attends to the K nearest along every axis of one, two or three.

Neighborhood Attention Transformer (arXiv 2204.07143), and Dilated Neighborhood Attention Transformer (arXiv
2209.15001), as NATTEN 0.17 defines them. Letters: B batch, K window, d dilation, L positions along an axis, D
width of a head. Maps are (B, heads, L, D), (B, heads, H, W, D) or (B, heads, depth, H, W, D).

What a naive reading gets wrong: nothing is padded. At a border the window slides inwards until it fits, so
every query sees exactly K keys, and the bias table's outer entries are used there alone. A dilated window
holds positions congruent to the query's modulo d, and slides among those; bias entries count its steps, not
positions.

`reference` gathers the keys of every query and is the definition; `blocked` (PyTorch, everywhere) and
`triton` (CUDA) compute it in tiles, forward and backward. Each is imported when it is first needed. As the
registered op `opsin::neighborhood_attention` it works under autocast, `torch.compile` and `torch.export`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from opsin.core.ops.full_precision import full_precision
from opsin.core.ops.neighborhood_attention.arguments import Attention
from opsin.core.ops.neighborhood_attention.reference import attend

__all__ = ["neighborhood_attention", "neighborhood_attention_reference"]

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    rpb: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attends from each position to its neighbourhood; differentiable in q, k, v and rpb.

    Computes in float32 (float64 if q is), whatever the types given; each gradient has its tensor's type.
    Memory beyond the maps' own does not grow with them. Deterministic.

    Args:
        q: queries (B, heads, *sizes, D) with one, two or three sizes, of any strides.
        k: keys, of q's shape.
        v: values, of q's shape.
        kernel_size: K, odd; one for all axes or one an axis.
        dilation: d, from 1; one for all axes or one an axis.
        rpb: relative position bias (heads, 2 K - 1, …) with an axis for each of the map's: the score of a key
            that lies i window steps after the query gets entry K - 1 + i.
        scale: of q; the default is D ** -0.5.

    Returns:
        (B, heads, *sizes, D) in q's type.

    Raises:
        ValueError: if shapes do not fit together, a kernel is even, or an axis is shorter than K * d.
    """
    return _attend(*_arguments(q, k, v, kernel_size, dilation, rpb, scale))


def neighborhood_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    rpb: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The definition of `neighborhood_attention` in a few lines of PyTorch; arguments as there."""
    return attend(_arguments(q, k, v, kernel_size, dilation, rpb, scale))


def _arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int],
    rpb: Tensor | None,
    scale: float | None,
) -> Attention:
    """The arguments, checked, with sizes of every axis."""
    axes = AXES.get(q.ndim - 3)
    if axes is None:
        raise ValueError(f"q must be (B, heads, *sizes, D) with one to three sizes, got {list(q.shape)}")
    kernels, dilations = _per_axis("kernel_size", kernel_size, axes), _per_axis("dilation", dilation, axes)
    for axis, length, size, step in zip(axes, q.shape[2:-1], kernels, dilations, strict=True):
        if size < 1 or size % 2 == 0 or step < 1:
            raise ValueError(
                f"kernel_size must be odd and dilation from 1, got {size} and {step} along {axis}"
            )
        if length < size * step:
            raise ValueError(
                f"{axis} {length} is too small for kernel_size {size} with dilation {step}: "
                f"it must be at least {size * step}"
            )
    table = (q.shape[1], *(2 * size - 1 for size in kernels))
    for name, given, expected in (("k", k, q.shape), ("v", v, q.shape), ("rpb", rpb, table)):
        if given is not None and tuple(given.shape) != tuple(expected):
            raise ValueError(
                f"{name} is {list(given.shape)}, expected {list(expected)} for q {list(q.shape)}"
            )
    return Attention(q, k, v, rpb, kernels, dilations, q.shape[-1] ** -0.5 if scale is None else scale)


def _per_axis(name: str, given: int | Sequence[int], axes: tuple[str, ...]) -> tuple[int, ...]:
    sizes = (given,) * len(axes) if isinstance(given, int) else tuple(given)
    if len(sizes) != len(axes):
        raise ValueError(f"{name} has {len(sizes)} numbers, expected {len(axes)} ({', '.join(axes)})")
    return sizes


def _implementation(device: torch.device) -> Any:
    """The module that computes the attention on `device`: it has `forward` and `backward`."""
    on_cuda = device.type == "cuda" and find_spec("triton") is not None
    return import_module(f"{__name__}.{'triton' if on_cuda else 'blocked'}")


@torch.library.custom_op("opsin::neighborhood_attention", mutates_args=())
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> Tensor:
    given = Attention(q, k, v, rpb, tuple(kernel_size), tuple(dilation), scale)
    with full_precision(q.device):
        return _implementation(q.device).forward(given)


@_attend.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("opsin::neighborhood_attention_backward", mutates_args=())
def _attend_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = Attention(q, k, v, rpb, tuple(kernel_size), tuple(dilation), scale)
    with full_precision(q.device):
        found = _implementation(q.device).backward(given, dout)
    dq, dk, dv, drpb = (g.to((q if x is None else x).dtype) for g, x in zip(found, given[:4], strict=True))
    return dq, dk, dv, drpb


@_attend_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    drpb = q.new_empty(0) if rpb is None else rpb.new_empty(rpb.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), drpb


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, rpb, *ctx.settings = inputs
    ctx.save_for_backward(q, k, v, rpb)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv, drpb = _attend_backward(dout, *ctx.saved_tensors, *ctx.settings)
    return dq, dk, dv, None if ctx.saved_tensors[3] is None else drpb, None, None, None


_attend.register_autograd(_differentiate, setup_context=_remember)
