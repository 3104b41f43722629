"""PSNR and SSIM of metalens pictures, and of the single Wiener filter that they should beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.restoration.metrics.lpips import LPIPS
from opsin.restoration.metrics.psnr_ssim import luma, psnr
from opsin.restoration.models.tiling import from_unit

SSIM_WINDOW = 7
Array = NDArray[Any]


def ssim_of_floats(image: Array, reference: Array) -> float:
    """SSIM as published for this task: scikit-image's 7x7 uniform window on RGB, data range 2 on [-1, 1].

    Args:
        image: (H, W, 3) from 0 to 1.
        reference: the same shape.
    """
    spread = (2 * image - 1, 2 * reference - 1)
    return float(structural_similarity(*spread, data_range=2, channel_axis=-1, win_size=SSIM_WINDOW))


def psnr_y(image: Array, reference: Array) -> float:
    """PSNR on Y of two pictures (H, W, 3) from 0 to 1, rounded to 8 bits first."""
    return psnr(*(luma((picture * 255).round()) for picture in (image, reference)))


def psnr_rgb(image: Array, reference: Array) -> float:
    """PSNR on RGB of two pictures (H, W, 3) from 0 to 1, rounded to 8 bits first."""
    return psnr(*((picture * 255).round() for picture in (image, reference)))


_MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "psnr_y": psnr_y,
    "psnr_rgb": psnr_rgb,
    "ssim": ssim_of_floats,
}


@METRICS.register_module()
class MetalensMetric(BaseMetric):
    """Means over pictures of `metalens/psnr_y`, `psnr_rgb` and `ssim`, and the same of the middle candidate.

    Those of the middle candidate, which is a single Wiener filter's result, are named `metalens/wiener_…`.

    Args:
        lpips_weights: torchvision's AlexNet (see `opsin.restoration.metrics.LPIPS`); with it there are
            `metalens/lpips` and `metalens/wiener_lpips` too.
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: if a picture is smaller than SSIM's window of 7 pixels.
    """

    default_prefix = "metalens"

    def __init__(self, lpips_weights: str | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.measures = dict(_MEASURES)
        if lpips_weights is not None:
            self.measures["lpips"] = LPIPS(lpips_weights).of_pictures

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the pictures of a batch: `pred_img` and `middle_img` against `gt_img`, (3, H, W)."""
        for sample in data_samples:
            clean = _pixels(sample["gt_img"])
            if min(clean.shape[:2]) < SSIM_WINDOW:
                raise UserError(f"{sample.get('img_path')} is too small to measure")
            row: dict[str, float] = {}
            for prefix, key in (("", "pred_img"), ("wiener_", "middle_img")):
                image = _pixels(sample[key])
                row |= {f"{prefix}{name}": measure(image, clean) for name, measure in self.measures.items()}
            self.results.append(row)

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The means."""
        return {name: float(np.mean([row[name] for row in results])) for name in results[0]}


def _pixels(picture: Any) -> Array:
    return from_unit(picture, np.dtype(np.float64)).transpose(1, 2, 0)
