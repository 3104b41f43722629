"""RoIAlign with the maximum, on the CPU: all channels of a sample at once, the largest of a bin stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from opsin.core.ops.kernels import Array, compiled


@compiled
def _corners(place: float, length: int) -> Any:
    """The two cells next to a place and the share of the second; a negative share where it lies outside."""
    if not (place >= -1.0 and place <= length):
        return 0, 0, -1.0
    place = min(max(place, 0.0), length - 1.0)
    low = int(place)
    return low, min(low + 1, length - 1), place - low


@compiled
def forward(
    begin: int,
    end: int,
    maps: Array,
    image: Array,
    start: Array,
    bin_size: Array,
    samples: Array,
    values: Array,
    best_y: Array,
    best_x: Array,
) -> None:
    """The largest sample of each bin and its place, for the regions `begin..end`.

    Args:
        begin: first region.
        end: one after the last.
        maps: (B, H, W, C).
        image: (N,) index into B.
        start: (N, 2) upper left corner (y, x) in cells.
        bin_size: (N, 2) in cells.
        samples: (N, 2) samples of a bin along each axis.
        values: (N, C, bins_y, bins_x), written where a bin has samples; a NaN is larger than every number.
        best_y: like values, the row of the sample.
        best_x: its column.
    """
    _, height, width, channels = maps.shape
    bins_y, bins_x = values.shape[2], values.shape[3]
    largest = np.empty(channels, maps.dtype)
    rows, columns = np.empty(channels, maps.dtype), np.empty(channels, maps.dtype)
    for n in range(begin, end):
        plane = maps[image[n]]
        count_y, count_x = samples[n, 0], samples[n, 1]
        if count_y <= 0 or count_x <= 0:
            continue
        for i in range(bins_y):
            for j in range(bins_x):
                largest[:] = -np.inf
                for s in range(count_y):
                    y = start[n, 0] + bin_size[n, 0] * (i + (s + maps.dtype.type(0.5)) / count_y)
                    low_y, high_y, rest_y = _corners(y, height)
                    for t in range(count_x):
                        x = start[n, 1] + bin_size[n, 1] * (j + (t + maps.dtype.type(0.5)) / count_x)
                        low_x, high_x, rest_x = _corners(x, width)
                        inside = rest_y >= 0 and rest_x >= 0
                        w1 = maps.dtype.type((1 - rest_y) * (1 - rest_x) if inside else 0.0)
                        w2 = maps.dtype.type((1 - rest_y) * rest_x if inside else 0.0)
                        w3 = maps.dtype.type(rest_y * (1 - rest_x) if inside else 0.0)
                        w4 = maps.dtype.type(rest_y * rest_x if inside else 0.0)
                        for c in range(channels):
                            value = (
                                w1 * plane[low_y, low_x, c]
                                + w2 * plane[low_y, high_x, c]
                                + w3 * plane[high_y, low_x, c]
                                + w4 * plane[high_y, high_x, c]
                            )
                            better = value > largest[c] or value != value
                            largest[c] = value if better else largest[c]
                            rows[c] = y if better else rows[c]
                            columns[c] = x if better else columns[c]
                for c in range(channels):
                    values[n, c, i, j] = largest[c]
                    best_y[n, c, i, j] = rows[c]
                    best_x[n, c, i, j] = columns[c]


@compiled
def backward(
    begin: int, end: int, grad_out: Array, image: Array, best_y: Array, best_x: Array, grad: Array
) -> None:
    """Adds the gradient of the maps, for the channels `begin..end` and all regions: threads never meet.

    Args:
        begin: first channel.
        end: one after the last.
        grad_out: (N, C, bins_y, bins_x).
        image: (N,) index into B.
        best_y: like grad_out, the row of each bin's largest sample.
        best_x: its column.
        grad: (B, C, H, W), added to.
    """
    height, width = grad.shape[2], grad.shape[3]
    for c in range(begin, end):
        for n in range(image.shape[0]):
            plane = grad[image[n], c]
            for i in range(grad_out.shape[2]):
                for j in range(grad_out.shape[3]):
                    low_y, high_y, rest_y = _corners(best_y[n, c, i, j], height)
                    low_x, high_x, rest_x = _corners(best_x[n, c, i, j], width)
                    if rest_y < 0 or rest_x < 0:
                        continue
                    given = grad_out[n, c, i, j]
                    plane[low_y, low_x] += given * (1 - rest_y) * (1 - rest_x)
                    plane[low_y, high_x] += given * (1 - rest_y) * rest_x
                    plane[high_y, low_x] += given * rest_y * (1 - rest_x)
                    plane[high_y, high_x] += given * rest_y * rest_x
