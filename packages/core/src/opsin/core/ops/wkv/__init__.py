"""WKV, RWKV's token mixer: a weighted mean of values whose weights decay with distance, in linear time.

RWKV: Reinventing RNNs for the Transformer Era (arXiv 2305.13048), its fourth version; both ways as in
Vision-RWKV: Efficient and Scalable Visual Perception with RWKV-Like Architectures (arXiv 2403.02308). In each
channel, over all other tokens i, or (causal) over those before t:

    y_t = (sum_i exp(k_i - (|t - i| - 1) w) v_i + exp(u + k_t) v_t) / (the same sum without v)

Letters: B batch, T tokens, C channels. What a naive reading gets wrong: a direct neighbour is not decayed;
the token itself has u in place of a decay; w may be negative (Vision-RWKV learns it freely), so that weights
grow with distance; RWKV-4's checkpoints hold log w; Vision-RWKV divides w and u by T before it calls.

`reference` is the definition; `cpu` (Numba), `triton` (CUDA) and `chunked` (PyTorch, everywhere) compute it
in linear time and memory. Each is imported when it is first needed. `OPSIN_NUMBA=0` in the environment turns
Numba off. As the registered ops `opsin::wkv` and `opsin::bi_wkv` they work under autocast, `torch.compile`
and `torch.export`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from opsin.core.ops.kernels import enabled
from opsin.core.ops.wkv.reference import bi_wkv_reference, initial_state, wkv_reference

__all__ = ["bi_wkv", "bi_wkv_reference", "initial_state", "wkv", "wkv_reference", "wkv_step"]


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mixes tokens both ways; differentiable in every tensor.

    Computes in float32 (float64 if v is), whatever the types given; each gradient has its tensor's type.
    Deterministic, whatever the number of threads.

    Args:
        w: (C,) decay a step; negative: weights grow with distance.
        u: (C,) power of a token's weight for itself, beside its key.
        k: keys (B, T, C), of any strides.
        v: values (B, T, C).

    Returns:
        (B, T, C) in v's type.

    Raises:
        ValueError: if shapes do not fit together.
    """
    _check(w, u, k, v)
    return _bi_wkv(w, u, k, v)


def wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mixes each token with those before it; differentiable in w, u, k and v.

    Types and threads as in `bi_wkv`.

    Args:
        w: (C,) decay a step. RWKV-4 keeps its logarithm: pass its exponential.
        u: (C,) power of a token's weight for itself, beside its key.
        k: keys (B, T, C), of any strides.
        v: values (B, T, C).
        state: (B, 3, C) of the tokens before these, as this function or `wkv_step` gave it: RWKV-4's running
            numerator and denominator, and the logarithm of the scale of both. None: there are none.

    Returns:
        (B, T, C) in v's type, and the state (B, 3, C) after the last token in the computing type. No gradient
        flows through states.

    Raises:
        ValueError: if shapes do not fit together.
    """
    _check(w, u, k, v)
    if state is None:
        state = initial_state(v)
    elif state.shape != (k.shape[0], 3, k.shape[2]):
        raise ValueError(f"state is {list(state.shape)}, expected {[k.shape[0], 3, k.shape[2]]} for this k")
    y, after = _wkv(w, u, k, v, state.detach())
    return y, after.detach()


def wkv_step(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of a stream, in a few PyTorch calls; differentiable in every tensor.

    Args:
        w: (C,), see `wkv`, as for all that follow.
        u: (C,).
        k: (B, C).
        v: (B, C).
        state: (B, 3, C); `initial_state` before the first token.

    Returns:
        (B, C) in v's type, and the new state (B, 3, C) in the computing type.

    Raises:
        ValueError: if shapes do not fit together.
    """
    if k.ndim != 2 or state.shape != (k.shape[0], 3, k.shape[1]):
        raise ValueError(
            f"k must be (B, C) and the state (B, 3, C), got {list(k.shape)} and {list(state.shape)}"
        )
    _check(w, u, k[:, None], v[:, None])
    y, after = wkv_reference(w, u, k[:, None], v[:, None], state)
    return y[:, 0], after


def _check(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError, quoting what was given and expected, if the shapes do not fit together."""
    if k.ndim != 3:
        raise ValueError(f"k must be (B, T, C), got {list(k.shape)}")
    for name, given, expected in (("w", w, k.shape[2:]), ("u", u, k.shape[2:]), ("v", v, k.shape)):
        if given.shape != expected:
            raise ValueError(
                f"{name} is {list(given.shape)}, expected {list(expected)} for k {list(k.shape)}"
            )


def _implementation(*tensors: Tensor) -> Any:
    """The module that computes WKV where the tensors are; its functions are those of `chunked`."""
    name = "cpu" if enabled(*tensors) else "chunked"
    if tensors[0].device.type == "cuda" and find_spec("triton") is not None:
        name = "triton"
    return import_module(f"{__name__}.{name}")


def _computing(v: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The tensors in the type that v is computed in."""
    kind = torch.promote_types(v.dtype, torch.float32)
    return [tensor.to(kind) for tensor in tensors]


@torch.library.custom_op("opsin::bi_wkv", mutates_args=())
def _bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    given = _computing(v, w, u, k, v)
    return _implementation(*given).bi_forward(*given).to(v.dtype)


@_bi_wkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.new_empty(v.shape)


@torch.library.custom_op("opsin::bi_wkv_backward", mutates_args=())
def _bi_wkv_backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _computing(v, w, u, k, v, dy)
    return _typed(_implementation(*given).bi_backward(*given), w, u, k, v)


@torch.library.custom_op("opsin::wkv", mutates_args=())
def _wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    given = _computing(v, w, u, k, v, state)
    y, after = _implementation(*given).forward(*given)
    return y.to(v.dtype), after


@_wkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(v.dtype, torch.float32)
    return v.new_empty(v.shape), state.new_empty(state.shape, dtype=kind)


@torch.library.custom_op("opsin::wkv_backward", mutates_args=())
def _wkv_backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = _computing(v, w, u, k, v, state, dy)
    return _typed(_implementation(*given).backward(*given), w, u, k, v)


def _typed(gradients: tuple[Tensor, ...], *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in the types of their tensors."""
    by_w, by_u, by_k, by_v = (g.to(x.dtype) for g, x in zip(gradients, given, strict=True))
    return by_w, by_u, by_k, by_v


@_bi_wkv_backward.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return w.new_empty(w.shape), u.new_empty(u.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@_wkv_backward.register_fake
def _(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return w.new_empty(w.shape), u.new_empty(u.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy: Tensor, by_state: Tensor) -> tuple[Tensor | None, ...]:
    return (*_wkv_backward(*ctx.saved_tensors, dy), None)


def _bi_differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
    return tuple(_bi_wkv_backward(*ctx.saved_tensors, dy))


_wkv.register_autograd(_differentiate, setup_context=_remember)
_bi_wkv.register_autograd(_bi_differentiate, setup_context=_remember)
