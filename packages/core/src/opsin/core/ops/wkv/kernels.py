"""WKV's Numba kernels: sixteen channels side by side, walked along the sequence.

A running sum is a pair (a, b) of numerator and denominator at a common scale, and that scale: the power `m`
of the heaviest key so far and the number `n` of steps that it has decayed by since, so that the true sums
are (a, b) * 2**(m - n * w). Taking w off the power step by step would round it each time, to the same side:
after a thousand steps that is far more than what float32 loses otherwise. One of the two factors of a step is
always 1, so a step costs one exponential. Powers are of two.

The backward pass needs nothing of the forward pass. With G_t = dy_t / denominator_t, the gradients by k and v
are running sums of G and G y over the tokens that see a key, with minus the power of the denominator for a
key. The gradient by w is minus the sum over t of dy_t times the covariance of values and distances under the
weights; it is kept running as a covariance (with the mean value and the summed distances), since a difference
of products of sums would be one of large numbers.

A task is a batch item and a vector of channels: flat arrays (B, T, W), W a multiple of `LANES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
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
def _place(task, length, width):
    """Channel, and place of its first step, of a task."""
    blocks = width // LANES
    return task % blocks * LANES, task // blocks * length * width + task % blocks * LANES


@compiled
def _nothing(like):
    """A running sum of nothing: numerator, denominator, power, steps."""
    zero = splat(like, 0)
    return zero, zero, splat(like, LOWEST), zero


@compiled
def _factors(like, m, n, w, key):
    """The factors, one of them 1, of the sums so far and of a key that is added, and the scale after it."""
    n = n + splat(like, 1)
    power = m - n * w
    factor = exp2(choose(key, power, power - key, key - power))
    return (
        choose(key, power, factor, splat(like, 1)),
        choose(key, power, splat(like, 1), factor),
        choose(key, power, key, m),
        choose(key, power, splat(like, 0), n),
    )


@compiled
def _advance(like, a, b, m, n, w, key, x, y):
    """One step: the sums decay, then x and y are added with the weight 2**key."""
    old, new, m, n = _factors(like, m, n, w, key)
    return fma(a, old, x * new), fma(b, old, y * new), m, n


@compiled
def _advance_slope(like, mean, b, far, slope, m, n, w, key, x):
    """One step of the mean value, the sum of weights b, that of weights times distances, and the covariance.

    The covariance comes at the scale of b, as b times the real one.
    """
    old, new, m, n = _factors(like, m, n, w, key)
    far, heavier = far + b, fma(b, old, new)
    step = choose(heavier, splat(like, 0), new * (x - mean) / heavier, splat(like, 0))
    return mean + step, heavier, far * old, (slope - step * far) * old, m, n


@compiled
def _larger(x, y):
    return choose(x, y, x, y)


@compiled
def forward(first, last, length, width, w, u, k, v, state, y):
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
def backward(first, last, length, width, w, u, k, v, state, dy, dw, du, dk, dv):
    """Gradients of `forward` by all but the state. dw, du: (B, W), of each batch item."""
    scale, one, zero = splat(k, LOG2_E), splat(k, 1), splat(k, 0)
    size = length * LANES
    heights, sums, products = np.empty(size, k.dtype), np.empty(size, k.dtype), np.empty(size, k.dtype)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        at = task // (width // LANES) * 3 * width + channel
        b, m, n = load(state, at + width), load(state, at + 2 * width), zero
        mean = choose(b, zero, load(state, at) / b, zero)
        far, slope, by_w, by_u = zero, zero, zero, zero
        for t in range(length):
            here = place + t * width
            key, value = load(k, here) * scale, load(v, here)
            past, own = m - n * decay, bonus + key
            top = _larger(own, past)
            by_past, by_own = exp2(past - top), exp2(own - top)
            below = one / fma(b, by_past, by_own)
            ahead = by_own * below * (value - mean)  # of the output before the mean
            grad = load(dy, here) * below
            by_w = by_w - grad * by_past * (slope - ahead * far)
            by_value = grad * by_own
            by_key = by_value * (value - mean) * b * by_past * below
            by_u = by_u + by_key
            store(dv, here, by_value)
            store(dk, here, by_key)
            store(heights, t * LANES, zero - top)
            store(sums, t * LANES, grad)
            store(products, t * LANES, grad * (mean + ahead))
            mean, b, far, slope, m, n = _advance_slope(k, mean, b, far, slope, m, n, decay, key, value)
        at = task // (width // LANES) * width + channel
        store(dw, at, by_w)
        store(du, at, by_u)
        _add_seen(length, width, decay, k, v, place, sums, products, heights, dk, dv)


@compiled
def _add_seen(length, width, w, k, v, place, sums, products, heights, dk, dv):
    """Adds what the tokens after each token give to its gradients."""
    a, b, m, n = _nothing(k)
    for t in range(length - 1, -1, -1):
        here, row = place + t * width, t * LANES
        weight = exp2(m - n * w + load(k, here) * splat(k, LOG2_E))
        store(dv, here, fma(weight, a, load(dv, here)))
        store(dk, here, load(dk, here) + weight * (a * load(v, here) - b))
        a, b, m, n = _advance(k, a, b, m, n, w, load(heights, row), load(sums, row), load(products, row))


@compiled
def _store_future(length, width, w, k, v, place, a_tile, b_tile, powers):
    """The running sums from the end, as each step sees them: those over the tokens after it."""
    a, b, m, n = _nothing(k)
    for t in range(length - 1, -1, -1):
        store(a_tile, t * LANES, a)
        store(b_tile, t * LANES, b)
        store(powers, t * LANES, m - n * w)
        key = load(k, place + t * width) * splat(k, LOG2_E)
        a, b, m, n = _advance(k, a, b, m, n, w, key, load(v, place + t * width), splat(k, 1))


@compiled
def bi_forward(first, last, length, width, w, u, k, v, y):
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
def _store_future_slopes(length, width, w, k, v, place, means, weights, fars, slopes, powers):
    """As `_store_future`, for what `_advance_slope` keeps."""
    mean, b, m, n = _nothing(k)
    far, slope = mean, mean
    for t in range(length - 1, -1, -1):
        store(means, t * LANES, mean)
        store(weights, t * LANES, b)
        store(fars, t * LANES, far)
        store(slopes, t * LANES, slope)
        store(powers, t * LANES, m - n * w)
        key, value = load(k, place + t * width) * splat(k, LOG2_E), load(v, place + t * width)
        mean, b, far, slope, m, n = _advance_slope(k, mean, b, far, slope, m, n, w, key, value)


@compiled
def bi_backward(first, last, length, width, w, u, k, v, dy, dw, du, dk, dv):
    """Gradients of `bi_forward`. dw, du: (B, W), of each batch item."""
    scale, one, zero = splat(k, LOG2_E), splat(k, 1), splat(k, 0)
    size = length * LANES
    means, weights, powers = np.empty(size, k.dtype), np.empty(size, k.dtype), np.empty(size, k.dtype)
    fars, slopes = np.empty(size, k.dtype), np.empty(size, k.dtype)
    for task in range(first, last):
        channel, place = _place(task, length, width)
        decay, bonus = load(w, channel), load(u, channel)
        _store_future_slopes(length, width, decay, k, v, place, means, weights, fars, slopes, powers)
        mean, b, m, n = _nothing(k)
        seen, products, seen_m, seen_n = _nothing(k)
        far, slope, by_w, by_u = zero, zero, zero, zero
        for t in range(length):
            here, row = place + t * width, t * LANES
            key, value, later = load(k, here) * scale, load(v, here), load(means, row)
            past, future, own = m - n * decay, load(powers, row), bonus + key
            top = _larger(own, _larger(past, future))
            by_past, by_future, by_own = exp2(past - top), exp2(future - top), exp2(own - top)
            before, after = b * by_past, load(weights, row) * by_future
            below = one / (before + after + by_own)
            from_mean = (after * (later - mean) + by_own * (value - mean)) * below  # to the output
            from_later = (before * (mean - later) + by_own * (value - later)) * below
            to_value = (before * (value - mean) + after * (value - later)) * below
            grad = load(dy, here) * below
            spread = fma(
                by_past,
                slope - from_mean * far,
                by_future * (load(slopes, row) - from_later * load(fars, row)),
            )
            by_w = by_w - grad * spread
            by_key = grad * by_own * to_value
            by_u = by_u + by_key
            weight = exp2(seen_m - seen_n * decay + key)
            store(dv, here, fma(weight, seen, grad * by_own))
            store(dk, here, by_key + weight * (seen * value - products))
            product = grad * (mean + from_mean)
            store(powers, row, zero - top)
            store(means, row, grad)
            store(weights, row, product)
            seen, products, seen_m, seen_n = _advance(
                k, seen, products, seen_m, seen_n, decay, zero - top, grad, product
            )
            mean, b, far, slope, m, n = _advance_slope(k, mean, b, far, slope, m, n, decay, key, value)
        at = task // (width // LANES) * width + channel
        store(dw, at, by_w)
        store(du, at, by_u)
        _add_seen(length, width, decay, k, v, place, means, weights, powers, dk, dv)
