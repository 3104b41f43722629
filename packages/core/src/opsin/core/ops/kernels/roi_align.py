"""RoIAlign on the CPU: the average over a bin's samples is separable, so rows are pooled first, then columns.

A bin's mean of bilinear samples is `sum_y sum_x Wy[y] Wx[x] map[y, x]`, where `Wy` and `Wx` collect the
weights of all its samples along one axis. So the work is about one multiplication for a cell of the map under
the box, however many samples there are, against four for each sample. The inner loop runs over a block of
channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opsin.core.ops.kernels import Array, compiled, compiled_sums


@compiled_sums
def _axis_weights(
    start: float, bin_size: float, samples: int, length: int, weights: Array, first: Array, last: Array
) -> None:
    """Fills `weights[bin, cell]` for the cells `first[bin]..last[bin]` that the samples of a bin touch."""
    for b in range(first.shape[0]):
        first[b] = 0
        last[b] = -1
        for s in range(samples):
            place = start + b * bin_size + (s + 0.5) * bin_size / samples
            if not (place >= -1.0 and place <= length):
                continue
            place = max(place, 0.0)
            low = int(place)
            if low >= length - 1:
                low = length - 1
                high = low
                rest = 0.0
            else:
                high = low + 1
                rest = place - low
            if last[b] < 0:
                first[b] = low
                last[b] = low - 1
            for cell in range(last[b] + 1, high + 1):
                weights[b, cell] = 0.0
            last[b] = max(last[b], high)
            weights[b, low] += 1.0 - rest
            weights[b, high] += rest


@compiled
def _span(first: Array, last: Array) -> Any:
    """The cells that any bin touches, as a half-open range."""
    low, high = np.int64(1 << 40), np.int64(0)
    for b in range(first.shape[0]):
        if last[b] >= 0:
            low = min(low, first[b])
            high = max(high, last[b] + 1)
    return min(low, high), high


@compiled_sums
def forward(
    begin: int, end: int, maps: Array, image: Array, start: Array, bin_size: Array, samples: Array, out: Array
) -> None:
    """Averages the bins of all regions for the channel blocks `begin..end`.

    Args:
        begin: first block of channels.
        end: one after the last.
        maps: (B, blocks, H, W, channels of a block): what one task reads again and again stays in the cache.
        image: (N,) index into B.
        start: (N, 2) upper left corner (y, x) in cells.
        bin_size: (N, 2) in cells.
        samples: (N, 2) samples of a bin along each axis.
        out: (N, blocks, channels of a block, bins_y, bins_x), written.
    """
    _, _, height, width, channels = maps.shape
    bins_y, bins_x = out.shape[3], out.shape[4]
    weights_y, weights_x = np.empty((bins_y, height), maps.dtype), np.empty((bins_x, width), maps.dtype)
    first_y, last_y = np.empty(bins_y, np.int64), np.empty(bins_y, np.int64)
    first_x, last_x = np.empty(bins_x, np.int64), np.empty(bins_x, np.int64)
    row = np.empty((bins_x, channels), maps.dtype)
    pooled = np.empty((bins_y, bins_x, channels), maps.dtype)
    for block in range(begin, end):
        for n in range(image.shape[0]):
            _axis_weights(start[n, 0], bin_size[n, 0], samples[n, 0], height, weights_y, first_y, last_y)
            _axis_weights(start[n, 1], bin_size[n, 1], samples[n, 1], width, weights_x, first_x, last_x)
            share = maps.dtype.type(1.0 / max(samples[n, 0] * samples[n, 1], 1))
            plane = maps[image[n], block]
            pooled[:] = 0
            top, bottom = _span(first_y, last_y)
            for y in range(top, bottom):
                row[:] = 0
                for j in range(bins_x):
                    for x in range(first_x[j], last_x[j] + 1):
                        weight = weights_x[j, x]
                        for c in range(channels):
                            row[j, c] += weight * plane[y, x, c]
                for i in range(bins_y):
                    if first_y[i] <= y <= last_y[i]:
                        weight = weights_y[i, y] * share
                        for j in range(bins_x):
                            for c in range(channels):
                                pooled[i, j, c] += weight * row[j, c]
            for c in range(channels):
                for i in range(bins_y):
                    for j in range(bins_x):
                        out[n, block, c, i, j] = pooled[i, j, c]


@compiled_sums
def backward(
    begin: int,
    end: int,
    grad_out: Array,
    image: Array,
    start: Array,
    bin_size: Array,
    samples: Array,
    grad: Array,
) -> None:
    """Adds the gradient of the maps, for the channel blocks `begin..end` and all regions: threads never meet.

    Args:
        begin: first block of channels.
        end: one after the last.
        grad_out: (N, blocks, channels of a block, bins_y, bins_x).
        image: as in `forward`, and so are start, bin_size and samples.
        start: see image.
        bin_size: see image.
        samples: see image.
        grad: (B, blocks, H, W, channels of a block), added to.
    """
    _, _, height, width, channels = grad.shape
    bins_y, bins_x = grad_out.shape[3], grad_out.shape[4]
    weights_y, weights_x = np.empty((bins_y, height), grad.dtype), np.empty((bins_x, width), grad.dtype)
    first_y, last_y = np.empty(bins_y, np.int64), np.empty(bins_y, np.int64)
    first_x, last_x = np.empty(bins_x, np.int64), np.empty(bins_x, np.int64)
    row = np.empty((bins_x, channels), grad.dtype)
    given = np.empty((bins_y, bins_x, channels), grad.dtype)
    for block in range(begin, end):
        for n in range(image.shape[0]):
            _axis_weights(start[n, 0], bin_size[n, 0], samples[n, 0], height, weights_y, first_y, last_y)
            _axis_weights(start[n, 1], bin_size[n, 1], samples[n, 1], width, weights_x, first_x, last_x)
            share = grad.dtype.type(1.0 / max(samples[n, 0] * samples[n, 1], 1))
            plane = grad[image[n], block]
            for c in range(channels):
                for i in range(bins_y):
                    for j in range(bins_x):
                        given[i, j, c] = grad_out[n, block, c, i, j] * share
            top, bottom = _span(first_y, last_y)
            for y in range(top, bottom):
                row[:] = 0
                for i in range(bins_y):
                    if first_y[i] <= y <= last_y[i]:
                        weight = weights_y[i, y]
                        for j in range(bins_x):
                            for c in range(channels):
                                row[j, c] += weight * given[i, j, c]
                for j in range(bins_x):
                    for x in range(first_x[j], last_x[j] + 1):
                        weight = weights_x[j, x]
                        for c in range(channels):
                            plane[y, x, c] += weight * row[j, c]
