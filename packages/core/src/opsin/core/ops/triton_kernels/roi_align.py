"""RoIAlign's average on a GPU: a program takes some channels of one bin.

Maps are channels-last, so a cell is a run of lanes. Samples that lie off the map count as 0 and are passed
over, which bounds the work by the map's size, whatever the region's. Going backward, bins that share a cell
meet in atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.triton_kernels import launch
from opsin.core.ops.triton_kernels.bilinear import bordered

MAX_LANES = 256  # channels of a program


@triton.jit
def _bin(BINS_Y: tl.constexpr, BINS_X: tl.constexpr, LANES: tl.constexpr):
    """The program's region, its bin's row and column, and its channels."""
    row = tl.program_id(0) // BINS_X
    channels = tl.program_id(1) * LANES + tl.arange(0, LANES)
    return (row // BINS_Y).to(tl.int64), row % BINS_Y, tl.program_id(0) % BINS_X, channels


@triton.jit
def _axis(start, bin_size, samples, at, turn, length):
    """Along one axis a bin's begin, extent and samples, and the run of samples that may lie on the map."""
    size = tl.load(bin_size + at)
    begin, count = tl.load(start + at) + turn * size, tl.load(samples + at).to(size.dtype)
    one, other = (-2 - begin) * count / size - 0.5, (length + 1 - begin) * count / size + 0.5
    first, last = tl.minimum(one, other), tl.maximum(one, other)
    first, last = tl.where(first > 0, first, 0.0), tl.where(last > 0, last, 0.0)  # NaN becomes 0
    last = tl.where(last < count, last, tl.maximum(count, 0.0))
    return begin, size, count, first.to(tl.int64), tl.ceil(last).to(tl.int64)


@triton.jit
def _forward_kernel(
    maps, image, start, bin_size, samples, out, batch, height, width, channels,
    BINS_Y: tl.constexpr, BINS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    n, i, j, c = _bin(BINS_Y, BINS_X, LANES)
    begin_y, size_y, count_y, first_y, last_y = _axis(start, bin_size, samples, 2 * n, i, height)
    begin_x, size_x, count_x, first_x, last_x = _axis(start, bin_size, samples, 2 * n + 1, j, width)
    b = tl.load(image + n)
    lanes, there = c < channels, (b >= 0) & (b < batch)
    summed = tl.zeros((LANES,), out.dtype.element_ty)
    for s in range(first_y, last_y):
        low_y, high_y, share_y, on_y = bordered(begin_y + size_y * ((s + 0.5) / count_y), height)
        low, high = (b * height + low_y) * width, (b * height + high_y) * width
        for t in range(first_x, last_x):
            low_x, high_x, share_x, on_x = bordered(begin_x + size_x * ((t + 0.5) / count_x), width)
            if there & on_y & on_x:
                above = (1 - share_x) * tl.load(maps + (low + low_x) * channels + c, mask=lanes, other=0.0)
                above += share_x * tl.load(maps + (low + high_x) * channels + c, mask=lanes, other=0.0)
                below = (1 - share_x) * tl.load(maps + (high + low_x) * channels + c, mask=lanes, other=0.0)
                below += share_x * tl.load(maps + (high + high_x) * channels + c, mask=lanes, other=0.0)
                summed += (1 - share_y) * above + share_y * below
    place = tl.program_id(0).to(tl.int64) * channels + c
    tl.store(out + place, summed / tl.maximum(count_y * count_x, 1.0), mask=c < channels)


@triton.jit
def _backward_kernel(
    grad, image, start, bin_size, samples, dmaps, batch, height, width, channels,
    BINS_Y: tl.constexpr, BINS_X: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    n, i, j, c = _bin(BINS_Y, BINS_X, LANES)
    begin_y, size_y, count_y, first_y, last_y = _axis(start, bin_size, samples, 2 * n, i, height)
    begin_x, size_x, count_x, first_x, last_x = _axis(start, bin_size, samples, 2 * n + 1, j, width)
    b = tl.load(image + n)
    lanes, there = c < channels, (b >= 0) & (b < batch)
    place = tl.program_id(0).to(tl.int64) * channels + c
    slope = tl.load(grad + place, mask=lanes, other=0.0) / tl.maximum(count_y * count_x, 1.0)
    for s in range(first_y, last_y):
        low_y, high_y, share_y, on_y = bordered(begin_y + size_y * ((s + 0.5) / count_y), height)
        low, high = (b * height + low_y) * width, (b * height + high_y) * width
        above, below = (1 - share_y) * slope, share_y * slope
        for t in range(first_x, last_x):
            low_x, high_x, share_x, on_x = bordered(begin_x + size_x * ((t + 0.5) / count_x), width)
            if there & on_y & on_x:
                left, right = low_x * channels + c, high_x * channels + c
                upper, lower = dmaps + low * channels, dmaps + high * channels
                tl.atomic_add(upper + left, (1 - share_x) * above, mask=lanes, sem="relaxed")
                tl.atomic_add(upper + right, share_x * above, mask=lanes, sem="relaxed")
                tl.atomic_add(lower + left, (1 - share_x) * below, mask=lanes, sem="relaxed")
                tl.atomic_add(lower + right, share_x * below, mask=lanes, sem="relaxed")


def forward(
    maps: Tensor, image: Tensor, start: Tensor, bin_size: Tensor, samples: Tensor, out: Tensor
) -> None:
    """Averages the bins of all regions.

    Args:
        maps: (B, H, W, C), of at least one number.
        image: (N,) int64 index into B; a region whose index is none pools 0.
        start: (N, 2) upper left corner (y, x) in cells.
        bin_size: (N, 2) in cells.
        samples: (N, 2) int64, samples of a bin along each axis.
        out: (N, bins_y, bins_x, C), written.
    """
    _launch(_forward_kernel, maps, out, maps, image, start, bin_size, samples, out)


def backward(
    grad: Tensor, image: Tensor, start: Tensor, bin_size: Tensor, samples: Tensor, grad_maps: Tensor
) -> None:
    """Adds the gradient of the maps.

    Args:
        grad: (N, bins_y, bins_x, C) of the output.
        image: as in `forward`, and so are start, bin_size and samples.
        start: see image.
        bin_size: see image.
        samples: see image.
        grad_maps: (B, H, W, C), added to.
    """
    _launch(_backward_kernel, grad_maps, grad, grad, image, start, bin_size, samples, grad_maps)


def _launch(kernel: triton.JITFunction, maps: Tensor, pooled: Tensor, *tensors: Tensor) -> None:
    regions, bins_y, bins_x, channels = pooled.shape
    lanes = min(MAX_LANES, triton.next_power_of_2(channels))
    grid = regions * bins_y * bins_x, triton.cdiv(channels, lanes)
    launch(kernel, grid, *tensors, *maps.shape, BINS_Y=bins_y, BINS_X=bins_x, LANES=lanes)
