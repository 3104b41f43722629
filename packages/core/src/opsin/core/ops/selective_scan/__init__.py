"""The selective scan of Mamba (S6): a linear recurrence whose steps and matrices follow the input.

Mamba: Linear-Time Sequence Modeling with Selective State Spaces (arXiv 2312.00752). With dt = delta +
delta_bias, through softplus if asked:

    h_t[d, n] = exp(dt_t[d] A[d, n]) h_{t-1}[d, n] + dt_t[d] B_t[n] u_t[d]        h_{-1} = 0
    y_t[d]    = sum_n C_t[n] h_t[d, n] + D[d] u_t[d],  times silu(z_t[d]) where there is a gate

A is discretised by the exponential (zero-order hold), B by plain multiplication with dt (Euler). Letters: B
batch, D channels, N states a channel, L steps, G groups of channels.

`reference` is the definition; `cpu` (Numba), `triton` (CUDA) and `chunked` (PyTorch, everywhere) compute it
faster. Each is imported when it is first needed. `OPSIN_NUMBA=0` in the environment turns Numba off. As the
registered op `opsin::selective_scan` it works under autocast, `torch.compile` and `torch.export`.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, overload

import torch
from torch import Tensor

from opsin.core.ops.selective_scan.arguments import Gradients, Scan
from opsin.core.ops.selective_scan.reference import selective_scan_reference

__all__ = ["selective_scan", "selective_scan_reference", "selective_scan_step"]


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    *,
    return_last_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scans along the last axis; differentiable in every tensor.

    Computes in float32 (float64 if u is), whatever the types given; each gradient has its tensor's type. NaN
    and infinities spread along their channel as the recurrence says. Deterministic, whatever the number of
    threads.

    Args:
        u: input (B, D, L), of any strides.
        delta: steps (B, D, L) before bias and softplus.
        A: (D, N) real, usually negative.
        B: (B, N, L) by position, (B, G, N, L) in groups of channels (channel d belongs to group d // (D /
            G)), or (D, N) fixed in time.
        C: in any of B's forms, independently of B's.
        D: skip weights (D,).
        z: gate (B, D, L): the output is multiplied by silu(z).
        delta_bias: (D,), added to delta before the softplus.
        delta_softplus: whether delta goes through softplus.
        return_last_state: whether to return the state after the last step too.

    Returns:
        (B, D, L) in u's type; with `return_last_state` also the state (B, D, N), through which no gradient
        flows.

    Raises:
        ValueError: if shapes do not fit together, or A is complex.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    out, state, _ = _scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save)
    return (out, state.detach()) if return_last_state else out


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Goes on from `state` by the steps given, one or a few: for streams.

    Args:
        state: (B, D, N), the last state of `selective_scan` or of this function; zeros before the first step.
        u: (B, D, L) with L = 1 for a single step; the others as in `selective_scan`, of the same L.
        delta: see `selective_scan`, as for all that follow.
        A: see there.
        B: see there.
        C: see there.
        D: see there.
        z: see there.
        delta_bias: see there.
        delta_softplus: see there.

    Returns:
        The outputs (B, D, L) in u's type and the new state (B, D, N) in the computing type.

    Raises:
        ValueError: if shapes do not fit together.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    if state.shape != (u.shape[0], *A.shape):
        raise ValueError(f"state is {list(state.shape)}, expected {[u.shape[0], *A.shape]} for this u and A")
    return selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state=state)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Raises ValueError, quoting what was given and expected, if the shapes do not fit together."""
    if u.ndim != 3 or A.ndim != 2:
        raise ValueError(f"u must be (B, D, L) and A (D, N), got {list(u.shape)} and {list(A.shape)}")
    if A.is_complex():
        raise ValueError("A is complex; the selective scan is provided for real A")
    batch, channels, length = u.shape
    states = A.shape[1]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("delta", delta, (batch, channels, length)),
        ("A", A, (channels, states)),
        ("D", D, (channels,)),
        ("z", z, (batch, channels, length)),
        ("delta_bias", delta_bias, (channels,)),
    ]
    for name, matrix in (("B", B), ("C", C)):
        forms = {2: (channels, states), 3: (batch, states, length)}
        groups = matrix.shape[1] if matrix.ndim == 4 else 1
        expected.append((name, matrix, forms.get(matrix.ndim, (batch, groups, states, length))))
        if groups == 0 or channels % groups:
            raise ValueError(f"{name} has {groups} groups, which do not divide the {channels} channels of u")
    for name, given, shape in expected:
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(f"{name} is {list(given.shape)}, expected {list(shape)} for u {list(u.shape)}")
    if B.ndim == C.ndim == 4 and B.shape[1] != C.shape[1] and 1 not in (B.shape[1], C.shape[1]):
        raise ValueError(
            f"B has {B.shape[1]} groups and C {C.shape[1]}; they must be equal, or one of them 1"
        )


def _implementation(device: torch.device) -> Any:
    """The module that computes the scan on `device`: it has `forward` and `backward`."""
    name = "chunked"
    if device.type == "cpu" and os.environ.get("OPSIN_NUMBA", "1") != "0":
        name = "cpu"
    if device.type == "cuda" and find_spec("triton") is not None:
        name = "triton"
    return import_module(f"{__name__}.{name}")


@torch.library.custom_op("opsin::selective_scan", mutates_args=())
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return _implementation(u.device).forward(scan, save)


@_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    state = (u.shape[0], *A.shape)
    kept = (u.shape[0], scan.chunks if save else 0, *A.shape)
    return torch.empty_like(u), u.new_empty(state, dtype=scan.kind), u.new_empty(kept, dtype=scan.kind)


@torch.library.custom_op("opsin::selective_scan_backward", mutates_args=())
def _scan_backward(
    dout: Tensor,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return tuple(_implementation(u.device).backward(scan, dout, kept))


@_scan_backward.register_fake
def _(
    dout: Tensor,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dense = [torch.empty_like(x) for x in (u, delta)]
    small = [x.new_empty(x.shape) for x in (A, B, C)]
    rest = [u.new_empty(0) if x is None else torch.empty_like(x) for x in (D, z, delta_bias)]
    return Gradients(*dense, *small, *rest)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(*tensors, output[2])


def _differentiate(ctx: Any, dout: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, kept = ctx.saved_tensors
    gradients = Gradients(*_scan_backward(dout, kept, *tensors, ctx.delta_softplus))
    present = (None if tensor is None else g for tensor, g in zip(tensors, gradients, strict=True))
    return (*present, None, None)


_scan.register_autograd(_differentiate, setup_context=_remember)
