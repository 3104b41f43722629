"""Deformable columns on the CPU: what a deformable convolution's matrix product is taken with.

Maps are channels-last, so the four cells around a sample are four runs of channels. A row of the columns is
one place of the output, numbered over images, rows and columns of the output map.
"""

from __future__ import annotations

import numpy as np

from opsin.core.ops.kernels import Array, compiled_sums


@compiled_sums
def gather(
    begin: int,
    end: int,
    first: int,
    maps: Array,
    offset: Array,
    mask: Array,
    geometry: tuple[int, ...],
    columns: Array,
) -> None:
    """Samples the map at every tap of the output places `first + begin .. first + end`.

    Args:
        begin: first row of `columns`.
        end: one after its last row.
        first: output place of row 0.
        maps: (B, H, W, C).
        offset: (B, groups, taps, 2, out_h, out_w), y and x.
        mask: (B, groups, taps, out_h, out_w), or of no elements where there is none.
        geometry: kernel width, stride y, x, padding y, x, dilation y, x.
        columns: (rows, taps, C), written.
    """
    _, height, width, channels = maps.shape
    _, groups, taps, _, out_h, out_w = offset.shape
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x = geometry
    run = channels // groups
    for row in range(begin, end):
        place = first + row
        b, i, j = place // (out_h * out_w), place // out_w % out_h, place % out_w
        for g in range(groups):
            for tap in range(taps):
                y = i * stride_y - pad_y + tap // kernel_w * dilation_y + offset[b, g, tap, 0, i, j]
                x = j * stride_x - pad_x + tap % kernel_w * dilation_x + offset[b, g, tap, 1, i, j]
                start = g * run
                for c in range(start, start + run):
                    columns[row, tap, c] = 0
                if not (y > -1 and x > -1 and y < height and x < width):
                    continue
                scale = mask[b, g, tap, i, j] if mask.size else maps.dtype.type(1)
                y0, x0 = int(np.floor(y)), int(np.floor(x))
                for dy in range(2):
                    for dx in range(2):
                        if 0 <= y0 + dy < height and 0 <= x0 + dx < width:
                            share = (y - y0 if dy else 1 - (y - y0)) * (x - x0 if dx else 1 - (x - x0))
                            weight = maps.dtype.type(share * scale)
                            for c in range(start, start + run):
                                columns[row, tap, c] += weight * maps[b, y0 + dy, x0 + dx, c]


@compiled_sums
def backward_places(
    begin: int,
    end: int,
    first: int,
    maps: Array,
    offset: Array,
    mask: Array,
    geometry: tuple[int, ...],
    grad: Array,
    grad_offset: Array,
    grad_mask: Array,
) -> None:
    """Gradients of offsets and mask, shaped like them; `grad` is the columns', the rest as in `gather`."""
    _, height, width, channels = maps.shape
    _, groups, taps, _, out_h, out_w = offset.shape
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x = geometry
    run = channels // groups
    for row in range(begin, end):
        place = first + row
        b, i, j = place // (out_h * out_w), place // out_w % out_h, place % out_w
        for g in range(groups):
            for tap in range(taps):
                y = i * stride_y - pad_y + tap // kernel_w * dilation_y + offset[b, g, tap, 0, i, j]
                x = j * stride_x - pad_x + tap % kernel_w * dilation_x + offset[b, g, tap, 1, i, j]
                if not (y > -1 and x > -1 and y < height and x < width):
                    continue
                scale = mask[b, g, tap, i, j] if mask.size else maps.dtype.type(1)
                y0, x0 = int(np.floor(y)), int(np.floor(x))
                mean, along_y, along_x = 0.0, 0.0, 0.0
                for dy in range(2):
                    for dx in range(2):
                        if 0 <= y0 + dy < height and 0 <= x0 + dx < width:
                            dot = maps.dtype.type(0)
                            for c in range(g * run, g * run + run):
                                dot += grad[row, tap, c] * maps[b, y0 + dy, x0 + dx, c]
                            share_y = y - y0 if dy else 1 - (y - y0)
                            share_x = x - x0 if dx else 1 - (x - x0)
                            mean += share_y * share_x * dot
                            along_y += (share_x if dy else -share_x) * dot
                            along_x += (share_y if dx else -share_y) * dot
                grad_offset[b, g, tap, 0, i, j] = along_y * scale
                grad_offset[b, g, tap, 1, i, j] = along_x * scale
                if mask.size:
                    grad_mask[b, g, tap, i, j] = mean


@compiled_sums
def scatter(
    begin: int,
    end: int,
    first: int,
    rows: int,
    offset: Array,
    mask: Array,
    geometry: tuple[int, ...],
    grad: Array,
    grad_maps: Array,
) -> None:
    """Adds the gradient of the map, for the channels `begin..end` and all rows (so threads never meet).

    Args:
        begin: first channel.
        end: one after the last channel.
        first: output place of row 0.
        rows: how many rows of `grad` to take.
        offset: as in `gather`, and so are mask and geometry.
        mask: see offset.
        geometry: see offset.
        grad: (rows, taps, C) of the columns.
        grad_maps: (B, H, W, C), added to.
    """
    _, height, width, channels = grad_maps.shape
    _, groups, taps, _, out_h, out_w = offset.shape
    kernel_w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x = geometry
    run = channels // groups
    for row in range(rows):
        place = first + row
        b, i, j = place // (out_h * out_w), place // out_w % out_h, place % out_w
        for g in range(begin // run, (end - 1) // run + 1):
            low, high = max(begin, g * run), min(end, g * run + run)
            for tap in range(taps):
                y = i * stride_y - pad_y + tap // kernel_w * dilation_y + offset[b, g, tap, 0, i, j]
                x = j * stride_x - pad_x + tap % kernel_w * dilation_x + offset[b, g, tap, 1, i, j]
                if not (y > -1 and x > -1 and y < height and x < width):
                    continue
                scale = mask[b, g, tap, i, j] if mask.size else grad_maps.dtype.type(1)
                y0, x0 = int(np.floor(y)), int(np.floor(x))
                for dy in range(2):
                    for dx in range(2):
                        if 0 <= y0 + dy < height and 0 <= x0 + dx < width:
                            share = (y - y0 if dy else 1 - (y - y0)) * (x - x0 if dx else 1 - (x - x0))
                            weight = grad_maps.dtype.type(share * scale)
                            for c in range(low, high):
                                grad_maps[b, y0 + dy, x0 + dx, c] += weight * grad[row, tap, c]
