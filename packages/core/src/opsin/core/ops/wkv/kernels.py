"""WKV's Numba kernels: sixteen channels side by side, walked along the sequence.

A running sum is a pair (a, b) of numerator and denominator at a common scale, and that scale: the power `m`
of the heaviest key so far and the number `n` of steps that it has decayed by since, so that the true sums are
(a, b) * 2**(m - n * w). Scaling the sums step by step instead would round the power at each step, always to
the same side: after a thousand steps that is far more than what float32 loses otherwise. One of the two
factors of a step is always 1, so a step costs one exponential. Powers are of two.

The backward pass needs nothing of the forward pass. With G_t = dy_t / denominator_t, the gradients by k and v
are running sums of G and G y over the tokens that see a key, with minus the power of the denominator for a
key; the gradient by w uses the derivative of the running sums by w, which is a running sum as well (l, r).

A task is a batch item and a vector of channels: flat arrays (B, T, W), W a multiple of `LANES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from opsin.core.ops.kernels import compiled
from opsin.core.ops.selective_scan.kernels import LANES, LOG2_E, Lanes, exp2, fma, load, splat, store
from opsin.core.ops.wkv.reference import LOWEST


@intrinsic
def choose(typing_context: Any, x: Lanes, y: Lanes, first: Lanes, second: Lanes) -> Any:
    """In each lane: `first` where x > y, else `second`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return x(x, x, x, x), emit


@compiled
def _place(task, length, width):  # type: ignore[no-untyped-def]  # Numba infers the types, here and below
    """Channel, and place of its first step, of a task."""
    blocks = width // LANES
    return task % blocks * LANES, task // blocks * length * width + task % blocks * LANES


@compiled
def _nothing(like):  # type: ignore[no-untyped-def]
    """A running sum of nothing: numerator, denominator, power, steps."""
    zero = splat(like, 0)
    return zero, zero, splat(like, LOWEST), zero


@compiled
def _factor(power, n, w, key):  # type: ignore[no-untyped-def]
    """The power that a running sum has decayed to, and the smaller of the two factors where a key is added."""
    power = power - n * w
    return power, exp2(choose(key, power, power - key, key - power))


@compiled
def _add(key, power, factor, old, new):  # type: ignore[no-untyped-def]
    return choose(key, power, fma(old, factor, new), fma(new, factor, old))


@compiled
def _advance(like, a, b, m, n, w, key, x, y):  # type: ignore[no-untyped-def]
    """One step: the sums decay, then x and y are added with the weight 2**key."""
    n = n + splat(like, 1)
    power, factor = _factor(m, n, w, key)
    return (
        _add(key, power, factor, a, x),
        _add(key, power, factor, b, y),
        choose(key, power, key, m),
        choose(key, power, splat(like, 0), n),
    )


@compiled
def _advance_slopes(like, a, b, l, r, m, n, w, key, x):  # type: ignore[no-untyped-def]
    """As `_advance` for x and 1, with minus the derivatives (l, r) of (a, b) by w at the same scale."""
    n = n + splat(like, 1)
    power, factor = _factor(m, n, w, key)
    zero = splat(like, 0)
    return (
        _add(key, power, factor, a, x),
        _add(key, power, factor, b, splat(like, 1)),
        _add(key, power, factor, l + a, zero),
        _add(key, power, factor, r + b, zero),
        choose(key, power, key, m),
        choose(key, power, zero, n),
    )


@compiled
def _larger(x, y):  # type: ignore[no-untyped-def]
    return choose(x, y, x, y)


@compiled
def forward(first, last, length, width, w, u, k, v, state, y):  # type: ignore[no-untyped-def]
    """The causal recurrence, tasks `first` to `last`.

    w, u: (W,) times log2(e). k, v, y: (B, T, W). state: (B, 3, W) numerator, denominator and power, replaced.
    """
    scale = splat(k, LOG2_E)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        at = task // (width // LANES) * 3 * width + channel
        a, b, m, n = load(state, at), load(state, at + width), load(state, at + 2 * width), splat(k, 0)
        for t in range(length):
            key, value = load(k, place + t * width) * scale, load(v, place + t * width)
            past, own = m - n * decay, bonus + key
            top = _larger(own, past)
            by_past, by_own = exp2(past - top), exp2(own - top)
            store(y, place + t * width, fma(a, by_past, by_own * value) / fma(b, by_past, by_own))
            a, b, m, n = _advance(k, a, b, m, n, decay, key, value, splat(k, 1))
        store(state, at, a)
        store(state, at + width, b)
        store(state, at + 2 * width, m - n * decay)


@compiled
def backward(first, last, length, width, w, u, k, v, state, dy, dw, du, dk, dv):  # type: ignore[no-untyped-def]
    """Gradients of `forward` by all but the state. dw, du: (B, W), of each batch item."""
    scale, one, zero = splat(k, LOG2_E), splat(k, 1), splat(k, 0)
    size = length * LANES
    heights, sums, products = np.empty(size, k.dtype), np.empty(size, k.dtype), np.empty(size, k.dtype)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        at = task // (width // LANES) * 3 * width + channel
        a, b, m, n = load(state, at), load(state, at + width), load(state, at + 2 * width), zero
        l, r, by_w, by_u = zero, zero, zero, zero
        for t in range(length):
            here = place + t * width
            key, value = load(k, here) * scale, load(v, here)
            past, own = m - n * decay, bonus + key
            top = _larger(own, past)
            by_past, by_own = exp2(past - top), exp2(own - top)
            below = one / fma(b, by_past, by_own)
            out = fma(a, by_past, by_own * value) * below
            slope = load(dy, here) * below
            by_w = by_w - slope * by_past * (l - out * r)
            by_value = slope * by_own
            by_key = by_value * (value - out)
            by_u = by_u + by_key
            store(dv, here, by_value)
            store(dk, here, by_key)
            store(heights, t * LANES, zero - top)
            store(sums, t * LANES, slope)
            store(products, t * LANES, slope * out)
            a, b, l, r, m, n = _advance_slopes(k, a, b, l, r, m, n, decay, key, value)
        at = task // (width // LANES) * width + channel
        store(dw, at, by_w)
        store(du, at, by_u)
        a, b, m, n = _nothing(k)
        for t in range(length - 1, -1, -1):
            here = place + t * width
            weight = exp2(m - n * decay + load(k, here) * scale)
            by_value = weight * a
            store(dv, here, load(dv, here) + by_value)
            store(dk, here, load(dk, here) + fma(by_value, load(v, here), zero - weight * b))
            a, b, m, n = _advance(
                k,
                a,
                b,
                m,
                n,
                decay,
                load(heights, t * LANES),
                load(sums, t * LANES),
                load(products, t * LANES),
            )


@compiled
def _store_future(length, width, w, k, v, place, a_tile, b_tile, powers):  # type: ignore[no-untyped-def]
    """The running sums from the end, as each step sees them: those over the tokens after it."""
    a, b, m, n = _nothing(k)
    for t in range(length - 1, -1, -1):
        store(a_tile, t * LANES, a)
        store(b_tile, t * LANES, b)
        store(powers, t * LANES, m - n * w)
        key = load(k, place + t * width) * splat(k, LOG2_E)
        a, b, m, n = _advance(k, a, b, m, n, w, key, load(v, place + t * width), splat(k, 1))


@compiled
def bi_forward(first, last, length, width, w, u, k, v, y):  # type: ignore[no-untyped-def]
    """The bidirectional sums; arguments as of `forward`."""
    scale, one = splat(k, LOG2_E), splat(k, 1)
    size = length * LANES
    a_tile, b_tile, powers = np.empty(size, k.dtype), np.empty(size, k.dtype), np.empty(size, k.dtype)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        _store_future(length, width, decay, k, v, place, a_tile, b_tile, powers)
        a, b, m, n = _nothing(k)
        for t in range(length):
            here, row = place + t * width, t * LANES
            key, value = load(k, here) * scale, load(v, here)
            past, future, own = m - n * decay, load(powers, row), bonus + key
            top = _larger(own, _larger(past, future))
            by_past, by_future, by_own = exp2(past - top), exp2(future - top), exp2(own - top)
            above = fma(a, by_past, fma(load(a_tile, row), by_future, by_own * value))
            store(y, here, above / fma(b, by_past, fma(load(b_tile, row), by_future, by_own)))
            a, b, m, n = _advance(k, a, b, m, n, decay, key, value, one)


@compiled
def _store_future_slopes(length, width, w, k, v, place, a_tile, b_tile, l_tile, r_tile, powers):  # type: ignore[no-untyped-def]
    """As `_store_future`, with the derivatives by w."""
    a, b, m, n = _nothing(k)
    l, r = a, b
    for t in range(length - 1, -1, -1):
        store(a_tile, t * LANES, a)
        store(b_tile, t * LANES, b)
        store(l_tile, t * LANES, l)
        store(r_tile, t * LANES, r)
        store(powers, t * LANES, m - n * w)
        key = load(k, place + t * width) * splat(k, LOG2_E)
        a, b, l, r, m, n = _advance_slopes(k, a, b, l, r, m, n, w, key, load(v, place + t * width))


@compiled
def bi_backward(first, last, length, width, w, u, k, v, dy, dw, du, dk, dv):  # type: ignore[no-untyped-def]
    """Gradients of `bi_forward`. dw, du: (B, W), of each batch item."""
    scale, one, zero = splat(k, LOG2_E), splat(k, 1), splat(k, 0)
    size = length * LANES
    a_tile, b_tile, powers = np.empty(size, k.dtype), np.empty(size, k.dtype), np.empty(size, k.dtype)
    l_tile, r_tile = np.empty(size, k.dtype), np.empty(size, k.dtype)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        _store_future_slopes(length, width, decay, k, v, place, a_tile, b_tile, l_tile, r_tile, powers)
        a, b, m, n = _nothing(k)
        ga, gb, gm, gn = _nothing(k)
        l, r, by_w, by_u = zero, zero, zero, zero
        for t in range(length):
            here, row = place + t * width, t * LANES
            key, value = load(k, here) * scale, load(v, here)
            past, future, own = m - n * decay, load(powers, row), bonus + key
            top = _larger(own, _larger(past, future))
            by_past, by_future, by_own = exp2(past - top), exp2(future - top), exp2(own - top)
            below = one / fma(b, by_past, fma(load(b_tile, row), by_future, by_own))
            out = fma(a, by_past, fma(load(a_tile, row), by_future, by_own * value)) * below
            slope = load(dy, here) * below
            by_far = fma(by_past, l - out * r, by_future * (load(l_tile, row) - out * load(r_tile, row)))
            by_w = by_w - slope * by_far
            by_key = slope * by_own * (value - out)
            by_u = by_u + by_key
            weight = exp2(gm - gn * decay + key)
            store(dv, here, fma(weight, ga, slope * by_own))
            store(dk, here, by_key + weight * (ga * value - gb))
            store(powers, row, zero - top)
            store(a_tile, row, slope)
            store(b_tile, row, slope * out)
            ga, gb, gm, gn = _advance(k, ga, gb, gm, gn, decay, zero - top, slope, slope * out)
            a, b, l, r, m, n = _advance_slopes(k, a, b, l, r, m, n, decay, key, value)
        at = task // (width // LANES) * width + channel
        store(dw, at, by_w)
        store(du, at, by_u)
        ga, gb, gm, gn = _nothing(k)
        for t in range(length - 1, -1, -1):
            here, row = place + t * width, t * LANES
            weight = exp2(gm - gn * decay + load(k, here) * scale)
            store(dv, here, fma(weight, ga, load(dv, here)))
            store(dk, here, load(dk, here) + weight * (ga * load(v, here) - gb))
            ga, gb, gm, gn = _advance(
                k, ga, gb, gm, gn, decay, load(powers, row), load(a_tile, row), load(b_tile, row)
            )
