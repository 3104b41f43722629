"""MS-SSIM: "Multiscale structural similarity for image quality assessment" (Wang et al., 2003).

The field's settings: Gaussian window of 11 pixels (sigma 1.5) inside the picture, five scales that 2x2 means
make, means over channels last. Values from 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
SMALLEST_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1  # of which the last scale still holds a window


def ms_ssim(image: Tensor, reference: Tensor) -> Tensor:
    """MS-SSIM of pictures (N, C, H, W) in [0, 1], averaged over pictures and channels.

    Raises:
        ValueError: if a side has less than 161 pixels.
    """
    if min(image.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(f"MS-SSIM needs sides of {SMALLEST_SIDE} pixels, got {tuple(image.shape[2:])}")
    factors = []
    for weight in WEIGHTS:
        luminance, contrast = _similarity(image, reference)
        factors.append(contrast.clamp(min=0) ** weight)
        last = luminance.clamp(min=0) ** weight
        padding = [side % 2 for side in image.shape[2:]]
        image, reference = (F.avg_pool2d(x, 2, padding=padding) for x in (image, reference))
    return (torch.stack(factors[:-1]).prod(0) * last).mean()


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its contrast and structure alone, averaged over places, (N, C)."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    contrast = (2 * covariance + C2) / (var_x + var_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * contrast).mean((2, 3)), contrast.mean((2, 3))


def _blurred(x: Tensor) -> Tensor:
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = (-(place**2) / (2 * SIGMA**2)).exp()
    window = (window / window.sum()).expand(x.shape[1], 1, 1, -1)
    rows = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(rows, window.transpose(2, 3), groups=x.shape[1])
