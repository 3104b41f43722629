"""What Uni4Eye reconstructs: patches of the input, and of the map of its edges."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SMOOTHING = (1.0, 4.0, 6.0, 4.0, 1.0)
DERIVATIVE = (-1.0, -2.0, 0.0, 2.0, 1.0)
GREY = (0.299, 0.587, 0.114)  # weights of channels 0, 1, 2


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """A picture (B, C, H, W) or volume (B, C, A, H, W) as patches (B, N, numbers), both in raster order.

    The numbers of a patch are its pixels row by row, the channels of a pixel together.
    """
    axes = x.ndim - 2
    for axis in range(axes):  # (B, C, a, p, b, p, …)
        x = x.unflatten(2 + 2 * axis, (-1, patch_size))
    order = [0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1]
    return x.permute(order).flatten(1, axes).flatten(2)


def unpatchify(patches: Tensor, grid: tuple[int, ...], patch_size: int) -> Tensor:
    """The way back from `patchify`; `grid` says how many patches lie along each side."""
    axes = len(grid)
    x = patches.unflatten(2, (*(patch_size,) * axes, -1)).unflatten(1, grid)
    order = [0, 1 + 2 * axes, *(place for axis in range(axes) for place in (1 + axis, 1 + axes + axis))]
    x = x.permute(order)
    for axis in range(axes):
        x = x.flatten(2 + axis, 3 + axis)
    return x


def normalised(patches: Tensor) -> Tensor:
    """Patches with mean 0 and (unbiased) variance 1 each."""
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def gradient_map(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """How strong the edges of a picture are: whole numbers 0..48.

    A Sobel filter of 5 x 5 along either axis, its results rounded; their magnitudes, averaged and rounded
    again. So coarse it is by design: the filter sees a picture of 0 to 1.

    Args:
        image: (H, W, 3), 0 to 1.

    Returns:
        (H, W).
    """
    grey = np.float32(image @ np.asarray(GREY, np.float32))
    x, y = (np.abs(np.rint(cv2.Sobel(grey, cv2.CV_64F, *order, ksize=5))) for order in ((1, 0), (0, 1)))
    return np.rint(0.5 * x + 0.5 * y).astype(np.float32)


def volume_gradient_map(volume: Tensor) -> Tensor:
    """How strong the edges of a volume (A, H, W) are, (A, H, W); chosen here, the authors' code has none.

    Along each axis the derivative of `gradient_map`, smoothed along the two others and divided by 16, which
    keeps the scale of pictures; the mean of the three magnitudes.
    """
    total = torch.zeros_like(volume)
    for axis in range(3):
        found = volume[None, None]
        for along in range(3):
            taps = torch.tensor(DERIVATIVE if along == axis else SMOOTHING, dtype=volume.dtype)
            shape, padding = [1, 1, 1, 1, 1], [0] * 6
            shape[2 + along] = 5
            padding[2 * (2 - along)] = padding[2 * (2 - along) + 1] = 2
            found = F.conv3d(F.pad(found, padding, mode="reflect"), taps.view(shape))
        total += found[0, 0].abs() / 16
    return total / 3
