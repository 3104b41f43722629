"""Bicubic reduction as MATLAB's `imresize` computes it, which super-resolution's published figures assume.

It differs from OpenCV's and PyTorch's bicubic: when it makes pictures smaller the kernel is widened by the
scale (antialiasing), pixels beyond the border are mirrored with the border pixel repeated, and each axis is
rounded to the picture's integer type before the next. Older MATLAB releases repeat the border pixel alone
instead of mirroring; some published LR pictures were made by them (SelfExSR's Set5: equal to the last bit
with `border='replicate'`).

The kernel is Keys' cubic convolution with a = -1/2 ("Cubic convolution interpolation for digital image
processing", 1981).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

KERNEL_WIDTH = 4.0

Border = Literal["symmetric", "replicate"]


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel at distances `x`; it is zero from 2 on."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=64)
def contributions(
    size: int, new_size: int, scale: float, border: Border = "symmetric"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which input pixels make each output pixel of one axis, and their weights, both (new_size, taps).

    Args:
        size: pixels of the axis.
        new_size: pixels after resizing.
        scale: new over old size; below 1 the kernel is widened.
        border: what lies beyond the border, as in `bicubic`.
    """
    stretch = min(scale, 1.0)
    width = KERNEL_WIDTH / stretch
    centre = (np.arange(new_size) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2 + 1)
    places = first[:, None] + np.arange(int(np.ceil(width)) + 1)
    weights = stretch * cubic(stretch * (centre[:, None] - places))
    weights /= weights.sum(1, keepdims=True)
    inside = places.astype(np.int64)
    if border == "replicate":
        return inside.clip(0, size - 1), weights
    inside %= 2 * size
    return np.minimum(inside, 2 * size - 1 - inside), weights


def bicubic(image: NDArray[Any], scale: float, border: Border = "symmetric") -> NDArray[Any]:
    """`image` resized by `scale`, as MATLAB's `imresize(image, scale)` does it.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16 or floating point.
        scale: new over old size, 0.25 for the LR picture of ×4. New sizes are rounded up.
        border: `symmetric` as MATLAB does today, `replicate` as its older releases did.

    Returns:
        (⌈scale·H⌉, ⌈scale·W⌉[, C]) of the same type; integers are rounded and clamped.
    """
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    for axis in (0, 1):
        size = image.shape[axis]
        # A hair less, so that 0.1 * 30 is 3 and not 3.0000000000000004, which would become 4.
        new_size = int(np.ceil(size * scale - 1e-9))
        image = _resize_axis(image, axis, *contributions(size, new_size, scale, border))
    return image


def _resize_axis(
    image: NDArray[Any], axis: int, places: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[Any]:
    moved = np.moveaxis(image, axis, 0)
    resized = np.zeros((len(places), *moved.shape[1:]))
    for place, weight in zip(places.T, weights.T, strict=True):
        resized += moved[place] * weight.reshape(-1, *[1] * (moved.ndim - 1))
    resized = np.moveaxis(resized, 0, axis)
    if image.dtype.kind != "u":
        return resized.astype(image.dtype)
    return np.clip(np.floor(resized + 0.5), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def crop_to_multiple(image: NDArray[Any], multiple: int) -> NDArray[Any]:
    """`image` (H, W, …) without the rows below and the columns on the right that no multiple needs."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]
