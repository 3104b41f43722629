"""The selective scan's Numba kernels, and the vectors that they are written in.

`Lanes` is a Numba value type: sixteen numbers side by side that LLVM keeps in vector registers (one of
AVX-512, two of AVX, four of NEON). Numba's own loop vectoriser gives up where arrays might overlap, and has
no vectorised exponential without Intel's SVML; with `Lanes` a kernel says what runs side by side, and its
exponential is a polynomial. Sixteen channels go through the scan together, so the recurrence, its exponential
and its sums over states need no step across lanes.

Vectors and kernels share one file because Numba's disk cache watches the kernel's own file alone. Items are
float32 or float64; infinities and NaN go through as in any arithmetic.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
LOG2_E = math.log2(math.e)


class Lanes(types.Type):
    """Numba type of `LANES` numbers of `dtype`."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, _vector(kind))


def _vector(kind: Lanes) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType(), LANES)


def _lanes(array: types.Array) -> Any:
    """The type of lanes that a float array gives."""
    return Lanes(types.float32 if array.dtype == types.float32 else types.float64)


def _bytes(array: types.Array) -> int:
    return 4 if array.dtype == types.float32 else 8


def _splat(value: float, vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [value] * LANES)


def _call(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    """Calls LLVM's vector intrinsic `llvm.NAME` on vectors of one type."""
    vector = args[0].type
    suffix = f"v{LANES}{'f32' if isinstance(vector.element, ir.FloatType) else 'f64'}"
    signature = ir.FunctionType(vector, [vector] * len(args))
    return builder.call(
        cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}"), args
    )


def _pointer(
    context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, offset: ir.Value
) -> ir.Value:
    data = context.make_array(kind)(context, builder, array).data
    vector = _vector(_lanes(kind))
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


@intrinsic
def load(typing_context: Any, array: types.Array, offset: types.Integer) -> Any:
    """The `LANES` items of a contiguous array that begin at a flat offset."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *args)
        return builder.load(place, align=_bytes(array))

    return _lanes(array)(array, types.intp), emit


@intrinsic
def store(typing_context: Any, array: types.Array, offset: types.Integer, value: Lanes) -> Any:
    """Writes lanes to a contiguous array from a flat offset."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], place, align=_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


@intrinsic
def broadcast(typing_context: Any, array: types.Array, offset: types.Integer) -> Any:
    """The item of a contiguous array at a flat offset, in every lane."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _spread(builder, builder.load(builder.gep(data, [args[1]])), _vector(signature.return_type))

    return _lanes(array)(array, types.intp), emit


@intrinsic
def splat(typing_context: Any, like: types.Array, number: types.Number) -> Any:
    """One number in every lane, of the item type of the array `like`."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _spread(builder, args[1], _vector(signature.return_type))

    return _lanes(like)(like, like.dtype), emit


def _spread(builder: ir.IRBuilder, number: ir.Value, vector: ir.VectorType) -> ir.Value:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


@intrinsic
def fma(typing_context: Any, x: Lanes, y: Lanes, addend: Lanes) -> Any:
    """X * y + addend, fused where the machine can."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _call(builder, "fmuladd", *args)

    return x(x, x, x), emit


@intrinsic
def total(typing_context: Any, x: Lanes) -> Any:
    """The sum of the lanes, pairwise."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            halves = [
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                for start in (0, width)
            ]
            low, high = (
                builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), h) for h in halves
            )
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return x.dtype(x), emit


# (2**r - 1) / r on [-1/2, 1/2], highest power first. The form makes 2**0 exact: the error of a decay near 1
# would # add up over thousands of steps.
_EXP2M1_OVER_R = tuple(
    float(c)
    for c in np.polynomial.Chebyshev.interpolate(
        lambda r: np.expm1(r * math.log(2)) / r, 5, domain=[-0.5, 0.5]
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef[::-1]
)


@intrinsic
def exp2(typing_context: Any, x: Lanes) -> Any:
    """2**x. In float32: 0 below 2**-126.5, infinity from 2**127.5."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if x.dtype == types.float64:
            return _call(builder, "exp2", args[0])
        return _exp2_float32(builder, args[0])

    return x(x), emit


def _exp2_float32(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    vector, integers = value.type, ir.VectorType(ir.IntType(32), LANES)
    for bound, inside in ((-127.0, ">"), (128.0, "<")):
        limit = _splat(bound, vector)  # unordered comparisons: a NaN stays, and the polynomial carries it on
        value = builder.select(builder.fcmp_unordered(inside, value, limit), value, limit)
    whole = _call(builder, "rint", value)
    rest = builder.fsub(value, whole)
    mantissa = _splat(_EXP2M1_OVER_R[0], vector)
    for coefficient in (*_EXP2M1_OVER_R[1:], 1.0):
        mantissa = _call(builder, "fmuladd", mantissa, rest, _splat(coefficient, vector))
    exponent = builder.add(builder.fptosi(whole, integers), ir.Constant(integers, [127] * LANES))
    scale = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * LANES)), vector)
    return builder.fmul(mantissa, scale)


@intrinsic
def softplus(typing_context: Any, x: Lanes) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|)."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value = args[0]
        vector = value.type
        power = builder.fmul(_call(builder, "fabs", value), _splat(-LOG2_E, vector))
        single = x.dtype == types.float32
        e = _exp2_float32(builder, power) if single else _call(builder, "exp2", power)
        tail = _log1p_float32(builder, e) if single else _log1p_float64(builder, e)
        zero = _splat(0.0, vector)
        return builder.fadd(builder.select(builder.fcmp_unordered(">", value, zero), value, zero), tail)

    return x(x), emit


def _log1p_float32(builder: ir.IRBuilder, e: ir.Value) -> ir.Value:
    """log(1 + e) for e in [0, 1]: 2 atanh(s) with s = e / (2 + e) <= 1/3, as a series in s squared."""
    s = builder.fdiv(e, builder.fadd(e, _splat(2.0, e.type)))
    square = builder.fmul(s, s)
    series = _splat(2 / 13, e.type)
    for power in (11, 9, 7, 5, 3, 1):
        series = _call(builder, "fmuladd", series, square, _splat(2 / power, e.type))
    return builder.fmul(s, series)


def _log1p_float64(builder: ir.IRBuilder, e: ir.Value) -> ir.Value:
    """log(1 + e), the rounding of 1 + e mended to first order."""
    one = _splat(1.0, e.type)
    near = builder.fadd(one, e)
    lost = builder.fsub(e, builder.fsub(near, one))
    return builder.fadd(_call(builder, "log", near), builder.fdiv(lost, near))


def _arithmetic(python: Any, name: str) -> None:
    @intrinsic
    def combine(typing_context: Any, x: Lanes, y: Lanes) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            return getattr(builder, name)(*args)

        return x(x, x), emit

    @overload(python)
    def choose(x, y):
        if isinstance(x, Lanes) and isinstance(y, Lanes):
            return lambda x, y: combine(x, y)
        return None


for _python, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_python, _name)


# The scan. A matrix of the caller (u, delta, z, B, …) comes as a flat array and its strides in items, so that
# channel-first and channel-last tensors are both read in place. Tiles of it, `chunk` steps by LANES channels,
# are laid # out as vectors in buffers that stay in the nearest cache.

jit = njit(cache=True, nogil=True, error_model="numpy")


@jit
def _task(task, parts, groups, blocks):
    """Batch item, group, part, and run of blocks (from, to) within the group, of a task."""
    part = task % parts
    return (
        task // (groups * parts),
        task // parts % groups,
        part,
        blocks * part // parts,
        blocks * (part + 1) // parts,
    )


@jit
def _read(source, origin, across, along, columns, rows, wide, tile):
    """tile[row, column], rows of `wide`, from source[origin + column * across + row * along], else 0."""
    if across == 1 and columns == LANES and wide == LANES:
        for row in range(rows):
            store(tile, row * LANES, load(source, origin + row * along))
    else:
        for column in range(columns):
            for row in range(rows):
                tile[row * wide + column] = source[origin + column * across + row * along]
        for column in range(columns, wide):
            for row in range(rows):
                tile[row * wide + column] = 0


@jit
def _write(tile, target, origin, across, along, columns, rows):
    """The way back from `_read`, for rows of LANES."""
    if across == 1 and columns == LANES:
        for row in range(rows):
            store(target, origin + row * along, load(tile, row * LANES))
    else:
        for column in range(columns):
            for row in range(rows):
                target[origin + column * across + row * along] = tile[row * LANES + column]


@jit
def _gather(source, at, stride, block, rows):
    """Packs `rows` vectors that lie `stride` apart: at large strides they would share a few cache sets."""
    for n in range(rows):
        store(block, n * LANES, load(source, at + n * stride))


@jit
def _scatter(block, target, at, stride, rows):
    """The way back from `_gather`."""
    for n in range(rows):
        store(target, at + n * stride, load(block, n * LANES))


@jit
def _add(block, place, value):
    store(block, place, load(block, place) + value)


@jit
def _sigmoid(like, x):
    one = splat(like, 1)
    return one / (one + exp2(x * splat(like, -LOG2_E)))


@jit
def _advance(
    rows,
    soft,
    keep,
    skip_w,
    bias_w,
    a,
    b,
    b_fixed,
    c,
    c_fixed,
    x_tile,
    delta_tile,
    step_tile,
    y_tile,
    decays,
    h,
):
    """Runs `rows` steps of one vector of channels.

    step_tile: the steps that delta makes. y_tile: the outputs before the gate. h: the state; with `keep`, h
        and decays
    hold every step's (h[row] before it, h[row + 1] after it).
    """
    states = a.size // LANES
    for row in range(rows):
        x = load(x_tile, row * LANES)
        step = load(delta_tile, row * LANES) + bias_w
        if soft:
            step = softplus(step)
        store(step_tile, row * LANES, step)
        drive = step * x
        y = skip_w * x
        old, new = (row * states * LANES, (row + 1) * states * LANES) if keep else (0, 0)
        for n in range(states):
            b_n = load(b, n * LANES) if b_fixed else broadcast(b, row * states + n)
            c_n = load(c, n * LANES) if c_fixed else broadcast(c, row * states + n)
            decay = exp2(step * load(a, n * LANES))
            if keep:
                store(decays, old + n * LANES, decay)
            state = fma(decay, load(h, old + n * LANES), drive * b_n)
            store(h, new + n * LANES, state)
            y = fma(c_n, state, y)
        store(y_tile, row * LANES, y)


@jit
def forward(
    first, last, parts, chunk, batch, channels, length, groups, soft, gated, a, skip, bias, b, b_fixed, b_by,
    c, c_fixed, c_by, u, u_by, delta, delta_by, z, z_by, out, out_by, state, kept, save,
):  # fmt: skip
    """Tasks `first` to `last` of a scan. W is D with each group padded to whole vectors.

    a: (N, W), in powers of two. skip, bias: (W,). b, c: (N, W) if fixed, else flat with strides (batch,
        group, state,
    step). u, delta, z, out: flat with strides (batch, channel, step). state: (B, N, W), zeros at first. kept:
    (B, K, N, W), written if `save`.
    """
    states, width = a.shape
    blocks, size = width // groups // LANES, channels // groups
    a_block, h = np.empty(states * LANES, u.dtype), np.empty(states * LANES, u.dtype)
    b_tile, c_tile = (
        np.empty(states * max(LANES, chunk), u.dtype),
        np.empty(states * max(LANES, chunk), u.dtype),
    )
    x_tile, delta_tile = np.zeros(chunk * LANES, u.dtype), np.zeros(chunk * LANES, u.dtype)
    z_tile, y_tile = np.zeros(chunk * LANES, u.dtype), np.zeros(chunk * LANES, u.dtype)
    for task in range(first, last):
        item, group, _, low, high = _task(task, parts, groups, blocks)
        for start in range(0, length, chunk):
            rows = min(chunk, length - start)
            if not b_fixed:
                place = item * b_by[0] + group * b_by[1] + start * b_by[3]
                _read(b, place, b_by[2], b_by[3], states, rows, states, b_tile)
            if not c_fixed:
                place = item * c_by[0] + group * c_by[1] + start * c_by[3]
                _read(c, place, c_by[2], c_by[3], states, rows, states, c_tile)
            for block in range(low, high):
                d, w, some = (
                    group * size + block * LANES,
                    (group * blocks + block) * LANES,
                    size - block * LANES,
                )
                some = min(LANES, some)
                _read(
                    u,
                    item * u_by[0] + d * u_by[1] + start * u_by[2],
                    u_by[1],
                    u_by[2],
                    some,
                    rows,
                    LANES,
                    x_tile,
                )
                place = item * delta_by[0] + d * delta_by[1] + start * delta_by[2]
                _read(delta, place, delta_by[1], delta_by[2], some, rows, LANES, delta_tile)
                _gather(a, w, width, a_block, states)
                _gather(state, item * states * width + w, width, h, states)
                if b_fixed:
                    _gather(b, w, width, b_tile, states)
                if c_fixed:
                    _gather(c, w, width, c_tile, states)
                if save:
                    _scatter(
                        h, kept, (item * kept.shape[1] + start // chunk) * states * width + w, width, states
                    )
                _advance(
                    rows, soft, False, load(skip, w), load(bias, w), a_block,
                    b_tile, b_fixed, c_tile, c_fixed,
                    x_tile, delta_tile, delta_tile, y_tile, h, h,
                )  # fmt: skip
                _scatter(h, state, item * states * width + w, width, states)
                if gated:
                    _read(
                        z,
                        item * z_by[0] + d * z_by[1] + start * z_by[2],
                        z_by[1],
                        z_by[2],
                        some,
                        rows,
                        LANES,
                        z_tile,
                    )
                    for row in range(rows):
                        gate = load(z_tile, row * LANES)
                        store(y_tile, row * LANES, load(y_tile, row * LANES) * gate * _sigmoid(u, gate))
                place = item * out_by[0] + d * out_by[1] + start * out_by[2]
                _write(y_tile, out, place, out_by[1], out_by[2], some, rows)


@jit
def _retreat(
    rows, soft, gated, skip_w, bias_w, a, b, b_fixed, c, c_fixed,
    x_tile, delta_tile, step_tile, y_tile, z_tile, g_tile, decays, h, dh, da, db, dc, dskip_w,
):  # fmt: skip
    """Back through `rows` steps of one vector of channels, after `_advance` with keep; gives the new dskip_w.

    g_tile: by the output before, by u after. x_tile becomes the gradient by delta, z_tile that by z. dh: by
        the state.
    da, and db and dc if fixed, are the channels'; else db and dc are every step's, summed over the channels
    so far.
    """
    states = a.size // LANES
    one, zero, ln2 = splat(x_tile, 1), splat(x_tile, 0), splat(x_tile, 1 / LOG2_E)
    for row in range(rows - 1, -1, -1):
        x, step, g = load(x_tile, row * LANES), load(step_tile, row * LANES), load(g_tile, row * LANES)
        if gated:
            gate = load(z_tile, row * LANES)
            opening = _sigmoid(x_tile, gate)
            y = load(y_tile, row * LANES)
            store(z_tile, row * LANES, g * y * opening * fma(gate, one - opening, one))
            g = g * gate * opening
        dskip_w = fma(g, x, dskip_w)
        drive = step * x
        by_drive, by_rate = zero, zero
        for n in range(states):
            old = (row * states + n) * LANES
            b_n = load(b, n * LANES) if b_fixed else broadcast(b, row * states + n)
            c_n = load(c, n * LANES) if c_fixed else broadcast(c, row * states + n)
            by_state = fma(g, c_n, load(dh, n * LANES))
            _add(db, n * LANES if b_fixed else old, by_state * drive)
            _add(dc, n * LANES if c_fixed else old, g * load(h, old + states * LANES))
            by_drive = fma(by_state, b_n, by_drive)
            by_state = by_state * load(decays, old)
            store(dh, n * LANES, by_state)
            by_power = by_state * load(h, old)
            _add(da, n * LANES, by_power * step)
            by_rate = fma(by_power, load(a, n * LANES), by_rate)
        by_step = fma(x, by_drive, by_rate * ln2)
        if soft:
            by_step = by_step * _sigmoid(x_tile, load(delta_tile, row * LANES) + bias_w)
        store(x_tile, row * LANES, by_step)
        store(g_tile, row * LANES, fma(step, by_drive, g * skip_w))
    return dskip_w


@jit
def backward(
    first, last, parts, chunk, batch, channels, length, groups, soft, gated, a, skip, bias, b, b_fixed, b_by,
    c, c_fixed, c_by, u, u_by, delta, delta_by, z, z_by, dout, dout_by, kept,
    du, du_by, ddelta, ddelta_by, dz, dz_by, da, db, dc, dskip, dstate,
):  # fmt: skip
    """Tasks `first` to `last` of the way back; arguments as of `forward`.

    da, dstate: (B, N, W), dskip: (B, W), db and dc: (B, N, W) if fixed, else (parts, B, G, L, N); zeros at
        first.
    """
    states, width = a.shape
    blocks, size = width // groups // LANES, channels // groups
    vector, tile, cube = states * LANES, chunk * LANES, chunk * states * LANES
    a_block, dh, da_block = np.empty(vector, u.dtype), np.empty(vector, u.dtype), np.empty(vector, u.dtype)
    b_tile, c_tile = (
        np.empty(states * max(LANES, chunk), u.dtype),
        np.empty(states * max(LANES, chunk), u.dtype),
    )
    x_tile, step_tile, y_tile = np.zeros(tile, u.dtype), np.zeros(tile, u.dtype), np.zeros(tile, u.dtype)
    delta_tile, z_tile, g_tile = np.zeros(tile, u.dtype), np.zeros(tile, u.dtype), np.zeros(tile, u.dtype)
    decays, h = np.empty(cube, u.dtype), np.empty(cube + vector, u.dtype)
    db_block, dc_block = np.empty(cube, u.dtype), np.empty(cube, u.dtype)
    for task in range(first, last):
        item, group, part, low, high = _task(task, parts, groups, blocks)
        for k in range(kept.shape[1] - 1, -1, -1):
            start = k * chunk
            rows = min(chunk, length - start)
            if not b_fixed:
                place = item * b_by[0] + group * b_by[1] + start * b_by[3]
                _read(b, place, b_by[2], b_by[3], states, rows, states, b_tile)
            if not c_fixed:
                place = item * c_by[0] + group * c_by[1] + start * c_by[3]
                _read(c, place, c_by[2], c_by[3], states, rows, states, c_tile)
            db_block[:], dc_block[:] = 0, 0
            for block in range(low, high):
                d, w, some = (
                    group * size + block * LANES,
                    (group * blocks + block) * LANES,
                    size - block * LANES,
                )
                some, corner = min(LANES, some), item * states * width + w
                _read(
                    u,
                    item * u_by[0] + d * u_by[1] + start * u_by[2],
                    u_by[1],
                    u_by[2],
                    some,
                    rows,
                    LANES,
                    x_tile,
                )
                place = item * delta_by[0] + d * delta_by[1] + start * delta_by[2]
                _read(delta, place, delta_by[1], delta_by[2], some, rows, LANES, delta_tile)
                place = item * dout_by[0] + d * dout_by[1] + start * dout_by[2]
                _read(dout, place, dout_by[1], dout_by[2], some, rows, LANES, g_tile)
                if gated:
                    _read(
                        z,
                        item * z_by[0] + d * z_by[1] + start * z_by[2],
                        z_by[1],
                        z_by[2],
                        some,
                        rows,
                        LANES,
                        z_tile,
                    )
                _gather(a, w, width, a_block, states)
                _gather(kept, (item * kept.shape[1] + k) * states * width + w, width, h, states)
                _gather(dstate, corner, width, dh, states)
                _gather(da, corner, width, da_block, states)
                if b_fixed:
                    _gather(b, w, width, b_tile, states)
                    _gather(db, corner, width, db_block, states)
                if c_fixed:
                    _gather(c, w, width, c_tile, states)
                    _gather(dc, corner, width, dc_block, states)
                _advance(
                    rows, soft, True, load(skip, w), load(bias, w), a_block, b_tile, b_fixed, c_tile, c_fixed,
                    x_tile, delta_tile, step_tile, y_tile, decays, h,
                )  # fmt: skip
                dskip_w = _retreat(
                    rows, soft, gated, load(skip, w), load(bias, w), a_block,
                    b_tile, b_fixed, c_tile, c_fixed,
                    x_tile, delta_tile, step_tile, y_tile, z_tile, g_tile,
                    decays, h, dh, da_block, db_block, dc_block,
                    load(dskip, item * width + w),
                )  # fmt: skip
                store(dskip, item * width + w, dskip_w)
                _scatter(dh, dstate, corner, width, states)
                _scatter(da_block, da, corner, width, states)
                if b_fixed:
                    _scatter(db_block, db, corner, width, states)
                if c_fixed:
                    _scatter(dc_block, dc, corner, width, states)
                place = item * du_by[0] + d * du_by[1] + start * du_by[2]
                _write(g_tile, du, place, du_by[1], du_by[2], some, rows)
                place = item * ddelta_by[0] + d * ddelta_by[1] + start * ddelta_by[2]
                _write(x_tile, ddelta, place, ddelta_by[1], ddelta_by[2], some, rows)
                if gated:
                    place = item * dz_by[0] + d * dz_by[1] + start * dz_by[2]
                    _write(z_tile, dz, place, dz_by[1], dz_by[2], some, rows)
            place = (((part * batch + item) * groups + group) * length + start) * states
            for i in range(rows * states):
                if not b_fixed:
                    db[place + i] = total(load(db_block, i * LANES))
                if not c_fixed:
                    dc[place + i] = total(load(dc_block, i * LANES))
