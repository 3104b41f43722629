"""Multi-scale deformable attention on a GPU: a program holds some queries' heads and walks their samples.

Rows are (image, query, head) triples, lanes a head's channels, so a sample's cell is a run of lanes. Going
backward a row owns its gradients by places and weights; those by values meet in atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.triton_kernels import launch
from opsin.core.ops.triton_kernels.bilinear import corner, on_map

TILE = 256  # numbers that a program holds: rows times lanes


@triton.jit
def _rows(positions, rows, queries, heads, ROWS: tl.constexpr):
    """The program's rows, which exist, and the value row of each one's head at the map's first position."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, row < rows, row // heads // queries * positions * heads + row % heads


@triton.jit
def _sample(places, sample, inside, height, width):
    """A sample's place in cells (0 where it is off the map) and whether it is on the map."""
    x = tl.load(places + 2 * sample, mask=inside, other=0.0) * width - 0.5
    y = tl.load(places + 2 * sample + 1, mask=inside, other=0.0) * height - 0.5
    on = inside & on_map(y, x, height, width)
    return tl.where(on, y, 0.0), tl.where(on, x, 0.0), on


@triton.jit
def _forward_kernel(
    value, shapes, places, weight, out, positions, rows, queries, heads, width_d, levels, points,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row, inside, first = _rows(positions, rows, queries, heads, ROWS)
    d = tl.arange(0, LANES)
    lanes = (d < width_d)[None, :]
    summed = tl.zeros((ROWS, LANES), out.dtype.element_ty)
    start = tl.full((), 0, tl.int64)
    for level in range(levels):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        for point in range(points):
            sample = (row * levels + level) * points + point
            y, x, on = _sample(places, sample, inside, height, width)
            scale = tl.load(weight + sample, mask=on, other=0.0)
            for k in tl.static_range(4):
                i, j, cell, share_y, share_x = corner(y, x, height, width, k)
                at = start + i * width + j
                mask = (on & cell & (at < positions))[:, None] & lanes
                cells = tl.load(value + ((first + at * heads) * width_d)[:, None] + d[None, :], mask, 0.0)
                summed += (share_y * share_x * scale)[:, None] * cells
        start += height * width
    tl.store(out + (row * width_d)[:, None] + d[None, :], summed, mask=inside[:, None] & lanes)


@triton.jit
def _backward_kernel(
    value, shapes, places, weight, grad, dvalue, dplaces, dweight,
    positions, rows, queries, heads, width_d, levels, points,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row, inside, first = _rows(positions, rows, queries, heads, ROWS)
    d = tl.arange(0, LANES)
    lanes = (d < width_d)[None, :]
    slopes = tl.load(grad + (row * width_d)[:, None] + d[None, :], mask=inside[:, None] & lanes, other=0.0)
    start = tl.full((), 0, tl.int64)
    for level in range(levels):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        for point in range(points):
            sample = (row * levels + level) * points + point
            y, x, on = _sample(places, sample, inside, height, width)
            scale = tl.load(weight + sample, mask=on, other=0.0)
            mean, along_y, along_x = scale * 0.0, scale * 0.0, scale * 0.0
            for k in tl.static_range(4):
                i, j, cell, share_y, share_x = corner(y, x, height, width, k)
                at = start + i * width + j
                mask = (on & cell & (at < positions))[:, None] & lanes
                cells = ((first + at * heads) * width_d)[:, None] + d[None, :]
                dot = tl.sum(tl.load(value + cells, mask=mask, other=0.0) * slopes, axis=1)
                mean += share_y * share_x * dot
                along_y += (2 * (k // 2) - 1) * share_x * dot
                along_x += (2 * (k % 2) - 1) * share_y * dot
                added = (share_y * share_x * scale)[:, None] * slopes
                tl.atomic_add(dvalue + cells, added, mask=mask, sem="relaxed")
            tl.store(dweight + sample, mean, mask=inside)
            tl.store(dplaces + 2 * sample, along_x * scale * width, mask=inside)
            tl.store(dplaces + 2 * sample + 1, along_y * scale * height, mask=inside)
        start += height * width


def forward(value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor, out: Tensor) -> None:
    """Writes the weighted sums.

    Args:
        value: (B, S, M, D).
        shapes: (L, 2) int64, height and width of each level; positions beyond S count as outside.
        places: (B, Q, M, L, P, 2) x, y in 0..1.
        weight: (B, Q, M, L, P).
        out: (B, Q, M, D), written.
    """
    _launch(_forward_kernel, value, shapes, places, weight, out)


def backward(
    value: Tensor,
    shapes: Tensor,
    places: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_value: Tensor,
    grad_places: Tensor,
    grad_weight: Tensor,
) -> None:
    """Gradients of `forward`.

    Args:
        value: as in `forward`, and so are shapes, places and weight.
        shapes: see value.
        places: see value.
        weight: see value.
        grad: (B, Q, M, D) of the output.
        grad_value: like value, zeros, added to.
        grad_places: like places, written.
        grad_weight: like weight, written.
    """
    _launch(_backward_kernel, value, shapes, places, weight, grad, grad_value, grad_places, grad_weight)


def _launch(kernel: triton.JITFunction, *tensors: Tensor) -> None:
    value, _, places, *_ = tensors
    _, positions, heads, width_d = value.shape
    batch, queries, _, levels, points, _ = places.shape
    lanes = triton.next_power_of_2(width_d)
    rows, held = batch * queries * heads, max(1, TILE // lanes)
    sizes = (positions, rows, queries, heads, width_d, levels, points)
    launch(kernel, (triton.cdiv(rows, held),), *tensors, *sizes, ROWS=held, LANES=lanes)
