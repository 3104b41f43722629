"""WKV in Triton, for CUDA (and, with `TRITON_INTERPRET=1`, on the CPU for tests).

The recurrences are those of `kernels`, where they are explained, with powers of e. A program walks the
sequence with `BLOCK` channels of one batch item, a channel a thread of one warp, so that a thread reads from
the scratch only what it wrote itself. Gradients by w and u are summed over the batch in PyTorch: no atomics,
so it is deterministic.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.wkv.chunked import Gradients
from opsin.core.ops.wkv.reference import initial_state

BLOCK = 32  # channels a program


@triton.jit
def _factors(m, n, w, key):
    """The factors, one of them 1, of the sums so far and of a key that is added, and the scale after it."""
    power = m - (n + 1.0) * w
    factor, heavier = tl.exp(-tl.abs(power - key)), key > power
    old, new = tl.where(heavier, factor, 1.0), tl.where(heavier, 1.0, factor)
    return old, new, tl.where(heavier, key, m), tl.where(heavier, 0.0, n + 1.0)


@triton.jit
def _advance(a, b, m, n, w, key, x, y):
    """One step: the sums decay, then x and y are added with the weight exp(key)."""
    old, new, m, n = _factors(m, n, w, key)
    return a * old + x * new, b * old + y * new, m, n


@triton.jit
def _advance_slope(mean, b, far, slope, m, n, w, key, x):
    """One step of the mean value, the sums of weights and of weights times distances, the covariance."""
    old, new, m, n = _factors(m, n, w, key)
    far, heavier = far + b, b * old + new
    step = tl.where(heavier > 0.0, new * (x - mean) / heavier, 0.0)
    return mean + step, heavier, far * old, (slope - step * far) * old, m, n


@triton.jit
def _start(state, item, channels, c, inside):
    """The running sums of a state (B, 3, C): numerator, denominator, power, steps."""
    at = state + item * 3 * channels + c
    a, b = tl.load(at, mask=inside, other=0.0), tl.load(at + channels, mask=inside, other=0.0)
    return a, b, tl.load(at + 2 * channels, mask=inside, other=0.0), a * 0.0


@triton.jit
def _forward_kernel(w, u, k, v, state, y, after, length, channels, BLOCK: tl.constexpr):
    item, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < channels
    decay, bonus = tl.load(w + c, mask=inside, other=0.0), tl.load(u + c, mask=inside, other=0.0)
    a, b, m, n = _start(state, item, channels, c, inside)
    for t in range(length):
        at = (item * length + t) * channels + c
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        past, own = m - n * decay, bonus + key
        top = tl.maximum(past, own)
        by_past, by_own = tl.exp(past - top), tl.exp(own - top)
        tl.store(y + at, (a * by_past + by_own * value) / (b * by_past + by_own), mask=inside)
        a, b, m, n = _advance(a, b, m, n, decay, key, value, 1.0)
    at = after + item * 3 * channels + c
    tl.store(at, a, mask=inside)
    tl.store(at + channels, b, mask=inside)
    tl.store(at + 2 * channels, m - n * decay, mask=inside)


@triton.jit
def _future(w, k, v, state, scratch, plane, item, length, channels, c, inside):
    """Writes the sums over the tokens after each token to planes of the scratch: a, b, power."""
    a, b, m, n = _start(state, item, channels, c, inside)
    for back in range(length):
        at = (item * length + length - 1 - back) * channels + c
        tl.store(scratch + at, a, mask=inside)
        tl.store(scratch + plane + at, b, mask=inside)
        tl.store(scratch + 2 * plane + at, m - n * w, mask=inside)
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        a, b, m, n = _advance(a, b, m, n, w, key, value, 1.0)


@triton.jit
def _future_slopes(w, k, v, state, scratch, plane, item, length, channels, c, inside):
    """As `_future`, for what `_advance_slope` keeps: mean, b, power, far, slope."""
    mean, b, m, n = _start(state, item, channels, c, inside)
    far, slope = mean * 0.0, mean * 0.0
    for back in range(length):
        at = (item * length + length - 1 - back) * channels + c
        tl.store(scratch + at, mean, mask=inside)
        tl.store(scratch + plane + at, b, mask=inside)
        tl.store(scratch + 2 * plane + at, m - n * w, mask=inside)
        tl.store(scratch + 3 * plane + at, far, mask=inside)
        tl.store(scratch + 4 * plane + at, slope, mask=inside)
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        mean, b, far, slope, m, n = _advance_slope(mean, b, far, slope, m, n, w, key, value)


@triton.jit
def _bi_forward_kernel(w, u, k, v, state, scratch, y, length, channels, BLOCK: tl.constexpr):
    item, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < channels
    decay, bonus = tl.load(w + c, mask=inside, other=0.0), tl.load(u + c, mask=inside, other=0.0)
    plane = tl.num_programs(0).to(tl.int64) * length * channels
    _future(decay, k, v, state, scratch, plane, item, length, channels, c, inside)
    a, b, m, n = _start(state, item, channels, c, inside)
    for t in range(length):
        at = (item * length + t) * channels + c
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        future = tl.load(scratch + 2 * plane + at, mask=inside, other=0.0)
        past, own = m - n * decay, bonus + key
        top = tl.maximum(tl.maximum(past, future), own)
        by_past, by_future, by_own = tl.exp(past - top), tl.exp(future - top), tl.exp(own - top)
        above = a * by_past + by_future * tl.load(scratch + at, mask=inside, other=0.0) + by_own * value
        below = b * by_past + by_future * tl.load(scratch + plane + at, mask=inside, other=0.0) + by_own
        tl.store(y + at, above / below, mask=inside)
        a, b, m, n = _advance(a, b, m, n, decay, key, value, 1.0)


@triton.jit
def _slope_runs(
    w, k, v, slopes, products, tops, state, dk, dv, item, length, channels, c, inside, AHEAD: tl.constexpr
):  # fmt: skip
    """Adds to dk and dv what tokens after (`AHEAD`), or before, each token give it."""
    a, b, m, n = _start(state, item, channels, c, inside)
    for step in range(length):
        at = (item * length + (length - 1 - step if AHEAD else step)) * channels + c
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        weight = tl.exp(m - n * w + key)
        tl.store(dv + at, tl.load(dv + at, mask=inside, other=0.0) + weight * a, mask=inside)
        tl.store(dk + at, tl.load(dk + at, mask=inside, other=0.0) + weight * (a * value - b), mask=inside)
        slope = tl.load(slopes + at, mask=inside, other=0.0)
        product, top = (
            tl.load(products + at, mask=inside, other=0.0),
            tl.load(tops + at, mask=inside, other=0.0),
        )
        a, b, m, n = _advance(a, b, m, n, w, -top, slope, product)


@triton.jit
def _backward_kernel(
    w, u, k, v, state, nothing, dy, scratch, dw, du, dk, dv, length, channels,
    BOTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Planes of the scratch: slopes, products, powers; with `BOTH` those of `_future_slopes` as well."""
    item, c = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < channels
    decay, bonus = tl.load(w + c, mask=inside, other=0.0), tl.load(u + c, mask=inside, other=0.0)
    plane = tl.num_programs(0).to(tl.int64) * length * channels
    ahead = scratch + 3 * plane
    if BOTH:
        _future_slopes(decay, k, v, nothing, ahead, plane, item, length, channels, c, inside)
    a, b, m, n = _start(state, item, channels, c, inside)
    mean = tl.where(b > 0.0, a / b, 0.0)
    far, slope, by_w, by_u = mean * 0.0, mean * 0.0, mean * 0.0, mean * 0.0
    for t in range(length):
        at = (item * length + t) * channels + c
        key, value = tl.load(k + at, mask=inside, other=0.0), tl.load(v + at, mask=inside, other=0.0)
        past, own = m - n * decay, bonus + key
        top = tl.maximum(past, own)
        if BOTH:
            future, later = tl.load(ahead + 2 * plane + at, mask=inside), tl.load(ahead + at, mask=inside)
            top = tl.maximum(top, future)
        by_past, by_own = tl.exp(past - top), tl.exp(own - top)
        before = b * by_past
        total, from_mean, to_value = before + by_own, by_own * (value - mean), before * (value - mean)
        if BOTH:
            by_future = tl.exp(future - top)
            after = by_future * tl.load(ahead + plane + at, mask=inside)
            total += after
            from_mean += after * (later - mean)
            to_value += after * (value - later)
        from_mean, to_value = from_mean / total, to_value / total
        spread = by_past * (slope - from_mean * far)
        if BOTH:
            from_later = (before * (mean - later) + by_own * (value - later)) / total
            far_ahead, slope_ahead = (
                tl.load(ahead + 3 * plane + at, mask=inside),
                tl.load(ahead + 4 * plane + at, mask=inside),
            )
            spread += by_future * (slope_ahead - from_later * far_ahead)
        grad = tl.load(dy + at, mask=inside, other=0.0) / total
        by_key = grad * by_own * to_value
        by_w -= grad * spread
        by_u += by_key
        tl.store(dv + at, grad * by_own, mask=inside)
        tl.store(dk + at, by_key, mask=inside)
        tl.store(scratch + at, grad, mask=inside)
        tl.store(scratch + plane + at, grad * (mean + from_mean), mask=inside)
        tl.store(scratch + 2 * plane + at, top, mask=inside)
        mean, b, far, slope, m, n = _advance_slope(mean, b, far, slope, m, n, decay, key, value)
    tl.store(dw + item * channels + c, by_w, mask=inside)
    tl.store(du + item * channels + c, by_u, mask=inside)
    _slope_runs(
        decay, k, v, scratch, scratch + plane, scratch + 2 * plane, nothing, dk, dv,
        item, length, channels, c, inside, True,
    )  # fmt: skip
    if BOTH:
        _slope_runs(
            decay, k, v, scratch, scratch + plane, scratch + 2 * plane, nothing, dk, dv,
            item, length, channels, c, inside, False,
        )  # fmt: skip


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As `chunked.forward`."""
    y, after = k.new_empty(k.shape), state.new_empty(state.shape)
    _launch(_forward_kernel, k, w, u, k, v, state, y, after)
    return y, after


def bi_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `chunked.bi_forward`."""
    y = k.new_empty(k.shape)
    _launch(_bi_forward_kernel, k, w, u, k, v, initial_state(k), k.new_empty(3, *k.shape), y)
    return y


def backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor) -> Gradients:
    """As `chunked.backward`."""
    return _gradients(w, u, k, v, state, dy, both=False)


def bi_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> Gradients:
    """As `chunked.bi_backward`."""
    return _gradients(w, u, k, v, initial_state(k), dy, both=True)


def _gradients(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor, both: bool
) -> Gradients:
    scratch = k.new_empty(8 if both else 3, *k.shape)
    dw, du = k.new_empty(k.shape[0], k.shape[2]), k.new_empty(k.shape[0], k.shape[2])
    dk, dv = k.new_empty(k.shape), k.new_empty(k.shape)
    results = (scratch, dw, du, dk, dv)
    _launch(_backward_kernel, k, w, u, k, v, state, initial_state(k), dy, *results, BOTH=both)
    return dw.sum(0), du.sum(0), dk, dv


def _launch(kernel: Any, k: Tensor, *tensors: Tensor, **constants: bool) -> None:
    """Runs a program for each block of channels of each batch item of k (B, T, C)."""
    batch, length, channels = k.shape
    if batch * channels:
        grid = (batch, triton.cdiv(channels, BLOCK))
        contiguous = (x.contiguous() for x in tensors)
        kernel[grid](*contiguous, length, channels, **constants, BLOCK=BLOCK, num_warps=1)
