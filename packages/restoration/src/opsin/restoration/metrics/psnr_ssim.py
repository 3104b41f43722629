"""PSNR and SSIM as super-resolution counts them: 8-bit pictures, Y of YCbCr or RGB, without a border.

SSIM: "Image quality assessment: from error visibility to structural similarity" (Wang et al., 2004), with its
Gaussian window of 11 pixels (sigma 1.5), averaged over the places where the window lies inside the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.restoration.metrics.lpips import LPIPS

Array = NDArray[Any]

LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255  # BT.601 from 0..255 to 16..235
WINDOW = 11
SIGMA = 1.5


def luma(rgb: Array) -> NDArray[np.float64]:
    """Y of BT.601, 16 to 235 and not rounded, of an RGB picture (H, W, 3) with values 0 to 255."""
    y: NDArray[np.float64] = rgb.astype(np.float64) @ LUMA_WEIGHTS + 16
    return y


def psnr(image: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; inf for equal pictures. Any equal shapes."""
    error = np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(image: Array, reference: Array) -> float:
    """Structural similarity for values 0 to 255, (H, W) or (H, W, C) (mean over C); 1 for equal pictures.

    Raises:
        ValueError: if a side is shorter than the window of 11 pixels.
    """
    if min(image.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs sides of at least {WINDOW} pixels, got {image.shape[:2]}")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    inside = (slice(WINDOW // 2, -(WINDOW // 2)),) * 2

    def blurred(a: Array) -> Array:
        return cv2.GaussianBlur(a, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT)[inside]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


_MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "psnr_y": lambda a, b: psnr(luma(a), luma(b)),
    "ssim_y": lambda a, b: ssim(luma(a), luma(b)),
    "psnr_rgb": psnr,
    "ssim_rgb": ssim,
}


@METRICS.register_module()
class SuperResolutionMetric(BaseMetric):
    """Means over pictures of `sr/psnr_y`, `sr/ssim_y`, `sr/psnr_rgb` and `sr/ssim_rgb`.

    Args:
        crop_border: HR pixels left out on every side; the field takes the scale.
        measures: which to compute.
        lpips_weights: torchvision's AlexNet (see `LPIPS`); with it there is `sr/lpips` too.
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: if a picture is not larger than its borders and SSIM's window; the message names it.
    """

    default_prefix = "sr"

    def __init__(
        self,
        crop_border: int,
        measures: Sequence[str] = tuple(_MEASURES),
        lpips_weights: str | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.crop_border = crop_border
        self.measures = {name: _MEASURES[name] for name in measures}
        if lpips_weights is not None:
            lpips = LPIPS(lpips_weights)
            self.measures["lpips"] = lambda image, reference: lpips.of_pictures(image / 255, reference / 255)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the pictures of a batch: `pred_img` against `gt_img`, both (3, H, W) uint8."""
        for sample in data_samples:
            pictures = (sample[key].cpu().numpy().transpose(1, 2, 0) for key in ("pred_img", "gt_img"))
            border = self.crop_border
            image, reference = (
                p[border : p.shape[0] - border, border : p.shape[1] - border] for p in pictures
            )
            if min(image.shape[:2]) < WINDOW:
                raise UserError(
                    f"{sample.get('gt_path')} is too small to measure: {image.shape[1]}x{image.shape[0]}"
                    f" after a border of {border} pixels",
                    f"sides of {WINDOW} are needed",
                )
            self.results.append({name: measure(image, reference) for name, measure in self.measures.items()})

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The means."""
        return {name: float(np.mean([row[name] for row in results])) for name in self.measures}
