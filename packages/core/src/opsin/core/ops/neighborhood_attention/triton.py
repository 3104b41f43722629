"""Neighborhood attention in Triton, for CUDA (and, with `TRITON_INTERPRET=1`, on the CPU for tests).

Every map is taken as one of three axes z, y, x. A program holds a tile of one class's queries (see `windows`)
in one plane and meets the keys row by row, with a running softmax. Three kernels go backward: by queries,
which also leaves each query's logarithm of its sum and its mean slope; by keys and values, which holds keys
and meets the queries that see them; by entries of the bias table. One program sums each number, in order: no
atomics, so it is deterministic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.neighborhood_attention.arguments import Attention, Gradients

TILE = 64  # queries or keys that a program holds
ROW = 16  # keys or queries that it meets at a time


@triton.jit
def _begin(query, members, K: tl.constexpr):
    """The first key that a query sees."""
    return tl.minimum(tl.maximum(query - K // 2, 0), members - K)


@triton.jit
def _seers(first, last, members, K: tl.constexpr):
    """The first query that sees key `first`, and the one after the last that sees key `last`."""
    low = tl.where(first < K, 0, first - K // 2)
    return low, tl.where(last >= members - K, members, last + K // 2 + 1)


@triton.jit
def _tile(Z, Y, X, DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr):
    """Of the program: head of an image, and along each axis class and first member of its tile."""
    wide, high = tl.cdiv(tl.cdiv(X, DX), TX), tl.cdiv(tl.cdiv(Y, DY), TY)
    tiles, run = wide * high * tl.cdiv(Z, DZ), tl.program_id(1)
    tile, head = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    z, y, x = tile // (wide * high), tile // wide % high * TY, tile % wide * TX
    return head, run // (DX * DY), run // DX % DY, run % DX, z, y, x


@triton.jit
def _rows(base, places, inside, d, WIDTH: tl.constexpr, KIND: tl.constexpr):
    """Rows (places, d) of a map (positions, WIDTH)."""
    mask = inside[:, None] & (d < WIDTH)[None, :]
    return tl.load(base + places[:, None] * WIDTH + d[None, :], mask=mask, other=0.0).to(KIND)


@triton.jit
def _keep(base, places, inside, d, rows, WIDTH: tl.constexpr):
    """The way back from `_rows`."""
    mask = inside[:, None] & (d < WIDTH)[None, :]
    tl.store(base + places[:, None] * WIDTH + d[None, :], rows, mask=mask)


@triton.jit
def _scores(
    q, k, table, scale, qz, qy, qx, kz, ky, kx, ny, nx,
    BIASED: tl.constexpr, KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
):  # fmt: skip
    """Scores (queries, keys) with their bias, minus infinity where a query does not see a key.

    The planes of both see each other; the members along y and x decide.
    """
    above, left = _begin(qy, ny, KY), _begin(qx, nx, KX)
    seen = (qy < ny) & (qx < nx) & (ky >= above) & (ky < above + KY) & (kx >= left) & (kx < left + KX)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if BIASED:
        entry = ((kz - qz + KZ - 1) * (2 * KY - 1) + ky - qy + KY - 1) * (2 * KX - 1) + kx - qx + KX - 1
        scores += tl.load(table + entry, mask=seen, other=0.0)
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def _forward_kernel(
    q, k, v, table, out, scale, heads, Z, Y, X,
    BIASED: tl.constexpr, KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    ROW: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    head, cz, cy, cx, qz, y, x = _tile(Z, Y, X, DZ, DY, DX, TY, TX)
    nz, ny, nx = tl.cdiv(Z - cz, DZ), tl.cdiv(Y - cy, DY), tl.cdiv(X - cx, DX)
    lane, d, column = tl.arange(0, TY * TX), tl.arange(0, LANES), tl.arange(0, ROW)
    qy, qx = y + lane // TX, x + lane % TX
    inside = (qz < nz) & (qy < ny) & (qx < nx)
    base = head * Z * Y * X * WIDTH
    places = ((cz + qz * DZ) * Y + cy + qy * DY) * X + cx + qx * DX
    queries = _rows(q + base, places, inside, d, WIDTH, KIND)
    table += head % heads * (2 * KZ - 1) * (2 * KY - 1) * (2 * KX - 1)
    top, total = tl.full((TY * TX,), -1e38, KIND), tl.zeros((TY * TX,), KIND)
    summed = tl.zeros((TY * TX, LANES), KIND)
    front, above, left = _begin(qz, nz, KZ), _begin(y, ny, KY), _begin(x, nx, KX)
    for kz in range(front, front + KZ):
        for ky in range(above, _begin(tl.minimum(y + TY, ny) - 1, ny, KY) + KY):
            for first in range(left, _begin(tl.minimum(x + TX, nx) - 1, nx, KX) + KX, ROW):
                kx = first + column
                at = ((cz + kz * DZ) * Y + cy + ky * DY) * X + cx + kx * DX
                keys = _rows(k + base, at, kx < nx, d, WIDTH, KIND)
                scores = _scores(
                    queries, keys, table, scale, qz, qy[:, None], qx[:, None], kz, ky, kx[None, :], ny, nx,
                    BIASED, KZ, KY, KX,
                )  # fmt: skip
                higher = tl.maximum(top, tl.max(scores, axis=1))
                weight = tl.exp(scores - higher[:, None])
                fade = tl.exp(top - higher)
                total = total * fade + tl.sum(weight, axis=1)
                values = _rows(v + base, at, kx < nx, d, WIDTH, KIND)
                summed = summed * fade[:, None] + tl.dot(weight, values, input_precision="ieee")
                top = higher
    _keep(out + base, places, inside, d, summed / total[:, None], WIDTH)


@triton.jit
def _query_kernel(
    q, k, v, table, dout, dq, sums, means, scale, heads, Z, Y, X,
    BIASED: tl.constexpr, KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    ROW: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """By queries: once over the keys for the sum and the mean slope, once more for the gradient."""
    head, cz, cy, cx, qz, y, x = _tile(Z, Y, X, DZ, DY, DX, TY, TX)
    nz, ny, nx = tl.cdiv(Z - cz, DZ), tl.cdiv(Y - cy, DY), tl.cdiv(X - cx, DX)
    lane, d, column = tl.arange(0, TY * TX), tl.arange(0, LANES), tl.arange(0, ROW)
    qy, qx = y + lane // TX, x + lane % TX
    inside = (qz < nz) & (qy < ny) & (qx < nx)
    base = head * Z * Y * X * WIDTH
    places = ((cz + qz * DZ) * Y + cy + qy * DY) * X + cx + qx * DX
    queries = _rows(q + base, places, inside, d, WIDTH, KIND)
    slopes = _rows(dout + base, places, inside, d, WIDTH, KIND)
    table += head % heads * (2 * KZ - 1) * (2 * KY - 1) * (2 * KX - 1)
    top, total, mean = (
        tl.full((TY * TX,), -1e38, KIND),
        tl.zeros((TY * TX,), KIND),
        tl.zeros((TY * TX,), KIND),
    )
    by_query = tl.zeros((TY * TX, LANES), KIND)
    front, above, left = _begin(qz, nz, KZ), _begin(y, ny, KY), _begin(x, nx, KX)
    for turn in tl.static_range(2):
        for kz in range(front, front + KZ):
            for ky in range(above, _begin(tl.minimum(y + TY, ny) - 1, ny, KY) + KY):
                for first in range(left, _begin(tl.minimum(x + TX, nx) - 1, nx, KX) + KX, ROW):
                    kx = first + column
                    at = ((cz + kz * DZ) * Y + cy + ky * DY) * X + cx + kx * DX
                    keys = _rows(k + base, at, kx < nx, d, WIDTH, KIND)
                    scores = _scores(
                        queries, keys, table, scale, qz, qy[:, None], qx[:, None], kz, ky, kx[None, :],
                        ny, nx, BIASED, KZ, KY, KX,
                    )  # fmt: skip
                    values = _rows(v + base, at, kx < nx, d, WIDTH, KIND)
                    by_weight = tl.dot(slopes, tl.trans(values), input_precision="ieee")
                    if turn == 0:
                        higher = tl.maximum(top, tl.max(scores, axis=1))
                        weight = tl.exp(scores - higher[:, None])
                        fade = tl.exp(top - higher)
                        total = total * fade + tl.sum(weight, axis=1)
                        mean = mean * fade + tl.sum(weight * by_weight, axis=1)
                        top = higher
                    else:
                        weight = tl.exp(scores - top[:, None])
                        by_score = weight * (by_weight - mean[:, None])
                        by_query += tl.dot(by_score, keys, input_precision="ieee")
        if turn == 0:
            mean, top = mean / total, top + tl.log(total)
    _keep(dq + base, places, inside, d, by_query * scale, WIDTH)
    tl.store(sums + head * Z * Y * X + places, top, mask=inside)
    tl.store(means + head * Z * Y * X + places, mean, mask=inside)


@triton.jit
def _key_kernel(
    q, k, v, table, dout, dk, dv, sums, means, scale, heads, Z, Y, X,
    BIASED: tl.constexpr, KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    ROW: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """By keys and values, from what `_query_kernel` left."""
    head, cz, cy, cx, kz, y, x = _tile(Z, Y, X, DZ, DY, DX, TY, TX)
    nz, ny, nx = tl.cdiv(Z - cz, DZ), tl.cdiv(Y - cy, DY), tl.cdiv(X - cx, DX)
    lane, d, column = tl.arange(0, TY * TX), tl.arange(0, LANES), tl.arange(0, ROW)
    ky, kx = y + lane // TX, x + lane % TX
    inside = (kz < nz) & (ky < ny) & (kx < nx)
    base, line = head * Z * Y * X * WIDTH, head * Z * Y * X
    places = ((cz + kz * DZ) * Y + cy + ky * DY) * X + cx + kx * DX
    keys = _rows(k + base, places, inside, d, WIDTH, KIND)
    values = _rows(v + base, places, inside, d, WIDTH, KIND)
    table += head % heads * (2 * KZ - 1) * (2 * KY - 1) * (2 * KX - 1)
    by_key, by_value = tl.zeros((TY * TX, LANES), KIND), tl.zeros((TY * TX, LANES), KIND)
    front, back = _seers(kz, kz, nz, KZ)
    above, below = _seers(y, tl.minimum(y + TY, ny) - 1, ny, KY)
    left, right = _seers(x, tl.minimum(x + TX, nx) - 1, nx, KX)
    for qz in range(front, back):
        for qy in range(above, below):
            for first in range(left, right, ROW):
                qx = first + column
                at = ((cz + qz * DZ) * Y + cy + qy * DY) * X + cx + qx * DX
                queries = _rows(q + base, at, qx < nx, d, WIDTH, KIND)
                scores = _scores(
                    queries, keys, table, scale, qz, qy, qx[:, None], kz, ky[None, :], kx[None, :], ny, nx,
                    BIASED, KZ, KY, KX,
                )  # fmt: skip
                top = tl.load(sums + line + at, mask=qx < nx, other=0.0)
                mean = tl.load(means + line + at, mask=qx < nx, other=0.0)
                weight = tl.exp(scores - top[:, None])
                slopes = _rows(dout + base, at, qx < nx, d, WIDTH, KIND)
                by_value += tl.dot(tl.trans(weight), slopes, input_precision="ieee")
                by_weight = tl.dot(slopes, tl.trans(values), input_precision="ieee")
                by_score = weight * (by_weight - mean[:, None])
                by_key += tl.dot(tl.trans(by_score), queries, input_precision="ieee")
    _keep(dk + base, places, inside, d, by_key * scale, WIDTH)
    _keep(dv + base, places, inside, d, by_value, WIDTH)


@triton.jit
def _pair(place, entry, length, K: tl.constexpr, D: tl.constexpr):
    """Along one axis the key that a query meets at an entry of the table, and whether it sees it."""
    member, members = place // D, tl.cdiv(length - place % D, D)
    key, begin = member + entry - (K - 1), _begin(member, members, K)
    return key * D + place % D, (key >= begin) & (key < begin + K)


@triton.jit
def _bias_kernel(
    q, k, v, table, dout, dtable, sums, means, scale, heads, Z, Y, X,
    BIASED: tl.constexpr, KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    DZ: tl.constexpr, DY: tl.constexpr, DX: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    ROW: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """By one entry of the bias table, of one image: each query meets one key at most."""
    entries = (2 * KZ - 1) * (2 * KY - 1) * (2 * KX - 1)
    head, entry = (tl.program_id(0) // entries).to(tl.int64), tl.program_id(0) % entries
    bias = tl.load(table + head % heads * entries + entry)
    lane, d = tl.arange(0, TY * TX), tl.arange(0, LANES)
    base, line = head * Z * Y * X * WIDTH, head * Z * Y * X
    found = tl.zeros((TY * TX,), KIND)
    for first in range(0, Z * Y * X, TY * TX):
        at = first + lane
        z, in_z = _pair(at // (Y * X), entry // ((2 * KX - 1) * (2 * KY - 1)), Z, KZ, DZ)
        y, in_y = _pair(at // X % Y, entry // (2 * KX - 1) % (2 * KY - 1), Y, KY, DY)
        x, in_x = _pair(at % X, entry % (2 * KX - 1), X, KX, DX)
        seen, key = in_z & in_y & in_x & (at < Z * Y * X), (z * Y + y) * X + x
        queries, keys = _rows(q + base, at, seen, d, WIDTH, KIND), _rows(k + base, key, seen, d, WIDTH, KIND)
        slopes, values = (
            _rows(dout + base, at, seen, d, WIDTH, KIND),
            _rows(v + base, key, seen, d, WIDTH, KIND),
        )
        top = tl.load(sums + line + at, mask=seen, other=0.0)
        mean = tl.load(means + line + at, mask=seen, other=0.0)
        score = tl.where(seen, tl.sum(queries * keys, axis=1) * scale + bias, float("-inf"))
        weight = tl.exp(score - top)
        found += weight * (tl.sum(slopes * values, axis=1) - mean)
    tl.store(dtable + head * entries + entry, tl.sum(found))


class _Prepared:
    """An `Attention` as the kernels read it: contiguous maps of three axes."""

    def __init__(self, given: Attention) -> None:
        missing = (1,) * (3 - len(given.sizes))
        sizes, kernel, dilation = (missing + x for x in (given.sizes, given.kernel_size, given.dilation))
        self.batch, self.heads, width = *given.q.shape[:2], given.q.shape[-1]
        table = given.q.new_zeros(1) if given.rpb is None else given.rpb
        self.tensors = (*(x.contiguous() for x in given[:3]), table.to(given.kind).contiguous())
        self.numbers = (given.scale, self.heads, *sizes)
        tile = (1, 1, TILE) if len(given.sizes) == 1 else (1, 8, TILE // 8)
        tiles = (-(-size // (step * n)) for size, step, n in zip(sizes, dilation, tile, strict=True))
        self.grid = (self.batch * self.heads * math.prod(tiles), math.prod(dilation))
        names = ("KZ", "KY", "KX", "DZ", "DY", "DX", "TY", "TX")
        self.constants: dict[str, Any] = {
            **dict(zip(names, kernel + dilation + tile[1:], strict=True)),
            "BIASED": given.rpb is not None,
            "ROW": ROW,
            "WIDTH": width,
            "LANES": max(16, triton.next_power_of_2(width)),
            "KIND": tl.float64 if given.kind == torch.float64 else tl.float32,
        }

    def launch(self, kernel: Any, *others: Tensor, grid: tuple[int, ...] | None = None) -> None:
        """Runs a kernel on the prepared tensors and others."""
        kernel[grid or self.grid](*self.tensors, *others, *self.numbers, **self.constants)


def forward(given: Attention) -> Tensor:
    """As `blocked.forward`."""
    out = given.q.new_empty(given.q.shape)
    if out.numel():
        _Prepared(given).launch(_forward_kernel, out)
    return out


def backward(given: Attention, dout: Tensor) -> Gradients:
    """As `blocked.backward`."""
    dq, dk, dv = (x.new_zeros(x.shape, dtype=given.kind) for x in given[:3])
    by_image = dq.new_zeros((given.q.shape[0], *((0,) if given.rpb is None else given.rpb.shape)))
    if dq.numel():
        prepared, dout = _Prepared(given), dout.contiguous()
        sums, means = dq.new_empty(dq.shape[:-1]), dq.new_empty(dq.shape[:-1])
        prepared.launch(_query_kernel, dout, dq, sums, means)
        prepared.launch(_key_kernel, dout, dk, dv, sums, means)
        if by_image.numel():
            prepared.launch(_bias_kernel, dout, by_image, sums, means, grid=(by_image.numel(),))
    return Gradients(dq, dk, dv, by_image.sum(0))
