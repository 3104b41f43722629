"""Multi-scale deformable attention on the CPU: each task is one head of one image, so threads never meet."""

from __future__ import annotations

import numpy as np

from opsin.core.ops.kernels import Array, compiled_sums


@compiled_sums
def forward(
    begin: int, end: int, value: Array, shapes: Array, places: Array, weight: Array, out: Array
) -> None:
    """Weighted sum of bilinear samples.

    Args:
        begin: first task; task t is head t % M of image t // M.
        end: one after the last task.
        value: (B, S, M, D).
        shapes: (L, 2) height and width of each level.
        places: (B, Q, M, L, P, 2) x, y in 0..1.
        weight: (B, Q, M, L, P).
        out: (B, Q, M, D) zeros, added to.
    """
    _, queries, heads, levels, points, _ = places.shape
    width_d = value.shape[3]
    for task in range(begin, end):
        b, m = task // heads, task % heads
        for q in range(queries):
            base = 0
            for level in range(levels):
                height, width = shapes[level, 0], shapes[level, 1]
                for p in range(points):
                    x = places[b, q, m, level, p, 0] * width - 0.5
                    y = places[b, q, m, level, p, 1] * height - 0.5
                    if x > -1 and y > -1 and x < width and y < height:
                        x0, y0 = int(np.floor(x)), int(np.floor(y))
                        for dy in range(2):
                            for dx in range(2):
                                row, column = y0 + dy, x0 + dx
                                if 0 <= row < height and 0 <= column < width:
                                    share = (y - y0 if dy else 1 - (y - y0)) * (
                                        x - x0 if dx else 1 - (x - x0)
                                    )
                                    scale = value.dtype.type(share * weight[b, q, m, level, p])
                                    at = base + row * width + column
                                    for d in range(width_d):
                                        out[b, q, m, d] += scale * value[b, at, m, d]
                base += height * width


@compiled_sums
def backward(
    begin: int,
    end: int,
    value: Array,
    shapes: Array,
    places: Array,
    weight: Array,
    grad: Array,
    grad_value: Array,
    grad_places: Array,
    grad_weight: Array,
) -> None:
    """Gradients of `forward`; the three gradients are zeros before and added to.

    Args:
        begin: as in `forward`, and so are end, value, shapes, places and weight.
        end: see begin.
        value: see begin.
        shapes: see begin.
        places: see begin.
        weight: see begin.
        grad: (B, Q, M, D) of the output.
        grad_value: like value.
        grad_places: like places.
        grad_weight: like weight.
    """
    _, queries, heads, levels, points, _ = places.shape
    width_d = value.shape[3]
    for task in range(begin, end):
        b, m = task // heads, task % heads
        for q in range(queries):
            base = 0
            for level in range(levels):
                height, width = shapes[level, 0], shapes[level, 1]
                for p in range(points):
                    x = places[b, q, m, level, p, 0] * width - 0.5
                    y = places[b, q, m, level, p, 1] * height - 0.5
                    if x > -1 and y > -1 and x < width and y < height:
                        x0, y0 = int(np.floor(x)), int(np.floor(y))
                        along_x, along_y, mean = 0.0, 0.0, 0.0
                        for dy in range(2):
                            for dx in range(2):
                                row, column = y0 + dy, x0 + dx
                                if 0 <= row < height and 0 <= column < width:
                                    share_y = y - y0 if dy else 1 - (y - y0)
                                    share_x = x - x0 if dx else 1 - (x - x0)
                                    scale = value.dtype.type(share_y * share_x * weight[b, q, m, level, p])
                                    at = base + row * width + column
                                    dot = value.dtype.type(0)
                                    for d in range(width_d):
                                        dot += grad[b, q, m, d] * value[b, at, m, d]
                                        grad_value[b, at, m, d] += scale * grad[b, q, m, d]
                                    mean += share_y * share_x * dot
                                    along_x += (share_y if dx else -share_y) * dot
                                    along_y += (share_x if dy else -share_x) * dot
                        grad_weight[b, q, m, level, p] = mean
                        grad_places[b, q, m, level, p, 0] = along_x * weight[b, q, m, level, p] * width
                        grad_places[b, q, m, level, p, 1] = along_y * weight[b, q, m, level, p] * height
                base += height * width
