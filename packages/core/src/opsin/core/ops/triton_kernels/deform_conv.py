"""Deformable columns on a GPU: a program gathers one tap of a deformable group for some output places.

As on the CPU, maps are channels-last and a row of the columns is one place of the output. Going backward a
tap owns its offset and mask; samples that share a cell meet in atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.triton_kernels import launch
from opsin.core.ops.triton_kernels.bilinear import corner, on_map

TILE = 512  # numbers that a program holds: rows times lanes
MAX_LANES = 128  # channels that it takes at a time


@triton.jit
def _tap(
    offset, mask, first, rows, height, width, taps, out_h, out_w,
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x,
    MASKED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Rows and which exist; places (0 if off the map), which are on it, masks; where both are kept."""
    row, tap = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) % taps
    inside, place = row < rows, first + row
    by_mask = tl.program_id(1) * out_h * out_w + place
    at = by_mask + tl.program_id(1) * out_h * out_w
    y = tl.load(offset + at, mask=inside, other=0.0)
    x = tl.load(offset + at + out_h * out_w, mask=inside, other=0.0)
    y += place // out_w * stride_y - pad_y + tap // kernel_w * dilation_y
    x += place % out_w * stride_x - pad_x + tap % kernel_w * dilation_x
    on = inside & on_map(y, x, height, width)
    scale = tl.where(on, y * 0.0 + 1.0, 0.0)
    if MASKED:
        scale = tl.load(mask + by_mask, mask=on, other=0.0)
    return row, inside, tl.where(on, y, 0.0), tl.where(on, x, 0.0), on, scale, at, by_mask


@triton.jit
def _gather_kernel(
    maps, offset, mask, columns, first, rows, height, width, channels, groups, taps, out_h, out_w,
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x,
    MASKED: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row, inside, y, x, on, scale, _, _ = _tap(
        offset, mask, first, rows, height, width, taps, out_h, out_w,
        kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, MASKED, ROWS,
    )  # fmt: skip
    group, tap, run = tl.program_id(1) // taps, tl.program_id(1) % taps, channels // groups
    column = (row.to(tl.int64) * taps + tap) * channels
    for low in range(0, run, LANES):
        c, lanes = group * run + low + tl.arange(0, LANES), low + tl.arange(0, LANES) < run
        summed = tl.zeros((ROWS, LANES), columns.dtype.element_ty)
        for k in tl.static_range(4):
            i, j, cell, share_y, share_x = corner(y, x, height, width, k)
            at = (i * width + j).to(tl.int64) * channels
            cells = tl.load(
                maps + at[:, None] + c[None, :], mask=(on & cell)[:, None] & lanes[None, :], other=0.0
            )
            summed += (share_y * share_x * scale)[:, None] * cells
        tl.store(columns + column[:, None] + c[None, :], summed, mask=inside[:, None] & lanes[None, :])


@triton.jit
def _scatter_kernel(
    maps, offset, mask, grad, dmaps, doffset, dmask,
    first, rows, height, width, channels, groups, taps, out_h, out_w,
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x,
    MASKED: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row, inside, y, x, on, scale, by_offset, by_mask = _tap(
        offset, mask, first, rows, height, width, taps, out_h, out_w,
        kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, MASKED, ROWS,
    )  # fmt: skip
    group, tap, run = tl.program_id(1) // taps, tl.program_id(1) % taps, channels // groups
    column = (row.to(tl.int64) * taps + tap) * channels
    mean, along_y, along_x = scale * 0.0, scale * 0.0, scale * 0.0
    for low in range(0, run, LANES):
        c, lanes = group * run + low + tl.arange(0, LANES), low + tl.arange(0, LANES) < run
        slopes = tl.load(
            grad + column[:, None] + c[None, :], mask=inside[:, None] & lanes[None, :], other=0.0
        )
        for k in tl.static_range(4):
            i, j, cell, share_y, share_x = corner(y, x, height, width, k)
            at = ((i * width + j).to(tl.int64) * channels)[:, None] + c[None, :]
            there = (on & cell)[:, None] & lanes[None, :]
            dot = tl.sum(tl.load(maps + at, mask=there, other=0.0) * slopes, axis=1)
            mean += share_y * share_x * dot
            along_y += (2 * (k // 2) - 1) * share_x * dot
            along_x += (2 * (k % 2) - 1) * share_y * dot
            added = (share_y * share_x * scale)[:, None] * slopes
            tl.atomic_add(dmaps + at, added, mask=there, sem="relaxed")
    tl.store(doffset + by_offset, along_y * scale, mask=inside)
    tl.store(doffset + by_offset + out_h * out_w, along_x * scale, mask=inside)
    if MASKED:
        tl.store(dmask + by_mask, mean, mask=inside)


def gather(
    first: int,
    maps: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: tuple[int, ...],
    columns: Tensor,
) -> None:
    """Samples the map at every tap of the output places of one image from `first` on.

    Args:
        first: output place of row 0.
        maps: (H, W, C).
        offset: (groups, taps, 2, out_h, out_w), y and x.
        mask: (groups, taps, out_h, out_w), or of no elements where there is none.
        geometry: kernel width, stride y, x, padding y, x, dilation y, x.
        columns: (rows, taps, C), written.
    """
    tensors = maps, offset, mask, columns
    _launch(_gather_kernel, tensors, first, maps, offset, mask, geometry, len(columns))


def scatter(
    first: int,
    maps: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: tuple[int, ...],
    grad: Tensor,
    grad_maps: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
) -> None:
    """Gradients of `gather`, whose arguments these are, too.

    Args:
        first: as in `gather`, and so are maps, offset, mask and geometry.
        maps: see first.
        offset: see first.
        mask: see first.
        geometry: see first.
        grad: (rows, taps, C) of the columns.
        grad_maps: like maps, added to.
        grad_offset: like offset, written for the places of the rows.
        grad_mask: like mask, written likewise.
    """
    tensors = maps, offset, mask, grad, grad_maps, grad_offset, grad_mask
    _launch(_scatter_kernel, tensors, first, maps, offset, mask, geometry, len(grad))


def _launch(
    kernel: triton.JITFunction,
    tensors: tuple[Tensor, ...],
    first: int,
    maps: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: tuple[int, ...],
    rows: int,
) -> None:
    height, width, channels = maps.shape
    groups, taps, _, out_h, out_w = offset.shape
    lanes = min(MAX_LANES, triton.next_power_of_2(channels // groups))
    grid = triton.cdiv(rows, TILE // lanes), groups * taps
    sizes = (first, rows, height, width, channels, groups, taps, out_h, out_w, *geometry)
    constants = {"MASKED": mask.numel() > 0, "ROWS": TILE // lanes, "LANES": lanes}
    launch(kernel, grid, *tensors, *sizes, **constants)
