"""CARAFE: upsampling whose kernel is predicted for every output place.

CARAFE, arXiv:1905.02188. Features are (B, C, H, W), kernels (B, G·K·K, s·H, s·W), the result (B, C, s·H,
s·W). Output place (i, j) is the sum of the K x K source cells around (i // s, j // s), weighted by its own
kernel; cells outside the map count as 0. Channels are cut into G equal groups that share a kernel; kernel
entries are row by row.

One product a tap at the output's size, summed: composed of differentiable calls, so it is its own reference.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """Reassembles features by predicted kernels; differentiable in both.

    Args:
        features: (B, C, H, W).
        masks: (B, group_size * kernel_size², scale_factor * H, scale_factor * W), normalised by the caller.
        kernel_size: odd.
        group_size: groups of channels that share a kernel.
        scale_factor: upsampling along both axes.

    Returns:
        (B, C, scale_factor * H, scale_factor * W).

    Raises:
        ValueError: if `masks` has another shape, the kernel is even, or the channels do not divide.
    """
    batch, channels, height, width = features.shape
    expected = (batch, group_size * kernel_size**2, height * scale_factor, width * scale_factor)
    if tuple(masks.shape) != expected or kernel_size % 2 == 0 or channels % group_size:
        raise ValueError(
            f"carafe: masks {list(masks.shape)} should be {list(expected)}, the kernel odd, C divisible"
        )
    padded = F.pad(features, [kernel_size // 2] * 4).unflatten(1, (group_size, -1))
    kernels = masks.view(batch, group_size, -1, height, scale_factor, width, scale_factor)
    out = features.new_zeros(())
    for tap in range(kernel_size**2):
        y, x = tap // kernel_size, tap % kernel_size
        cells = padded[..., y : y + height, x : x + width]
        out = out + cells[:, :, :, :, None, :, None] * kernels[:, :, None, tap]
    return out.reshape(batch, channels, height * scale_factor, width * scale_factor)
