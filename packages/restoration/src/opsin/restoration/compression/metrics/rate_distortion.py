"""Rate and distortion of coded pictures, and what one codec saves over another.

Bjøntegaard's delta rate ("Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001): the
mean difference of log rate over the qualities that both curves reach, each curve interpolated by the field's
piecewise cubic Hermite polynomials (or by the original single cubic).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.restoration.compression.ms_ssim import SMALLEST_SIDE, ms_ssim

WHITE = 255
Points = Sequence[tuple[float, float]]


@METRICS.register_module()
class RateDistortionMetric(BaseMetric):
    """Means over pictures, under `compression/`.

    `bpp` are bits of the file (in validation: estimated bits) over the picture's own pixels, `estimated_bpp`
    what the likelihoods say. `psnr` is over RGB in dB, `ms_ssim` likewise, both before rounding to 8 bits.

    Args:
        with_ms_ssim: whether to measure MS-SSIM, which needs sides of 161 pixels.
        trade_off: for `loss`, which is bpp plus this much times 255² MSE (`mse`) or 1 - MS-SSIM (`ms_ssim`).
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: if a picture is too small for MS-SSIM; the message names it.
    """

    default_prefix = "compression"

    def __init__(
        self, with_ms_ssim: bool = True, trade_off: dict[str, float] | None = None, **base: Any
    ) -> None:
        super().__init__(**base)
        self.with_ms_ssim = with_ms_ssim
        self.trade_off = trade_off or {}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures `reconstruction` against `gt_img`, with `bits` and `estimated_bits`."""
        for sample in data_samples:
            image, reconstruction = sample["gt_img"].cpu() / 255, sample["reconstruction"].cpu()
            pixels = image[0].numel()
            row = {
                "bpp": sample["bits"] / pixels,
                "estimated_bpp": sample["estimated_bits"] / pixels,
                "psnr": _psnr(image, reconstruction),
            }
            if self.with_ms_ssim:
                if min(image.shape[1:]) < SMALLEST_SIDE:
                    raise UserError(
                        f"{sample.get('img_path')} is too small for MS-SSIM, which needs sides of"
                        f" {SMALLEST_SIDE} pixels",
                        "set val_evaluator.with_ms_ssim=False and test_evaluator.with_ms_ssim=False",
                    )
                row["ms_ssim"] = float(ms_ssim(reconstruction[None], image[None]))
            self.results.append(row | self._loss(row))

    def _loss(self, row: dict[str, float]) -> dict[str, float]:
        if not self.trade_off:
            return {}
        distortions = {"mse": WHITE**2 * 10 ** (-row["psnr"] / 10), "ms_ssim": 1 - row.get("ms_ssim", 1.0)}
        weighted = sum(weight * distortions[name] for name, weight in self.trade_off.items())
        return {"loss": row["bpp"] + weighted}

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The means."""
        return {name: float(np.mean([row[name] for row in results])) for name in results[0]}


def _psnr(image: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """In dB for a peak of 1, which is the picture's white."""
    error = float((image.double() - reconstruction.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def bd_rate(anchor: Points, test: Points, *, fit: Literal["pchip", "cubic"] = "pchip") -> float:
    """How much more rate `test` needs than `anchor` for the same quality, in percent; negative is less.

    Args:
        anchor: (rate, quality) points of the reference, at least four for `cubic`, two for `pchip`.
        test: those of the codec that is compared.
        fit: `pchip`, or `cubic` for the polynomial of the original proposal.

    Raises:
        UserError: if a curve has too few points, is not increasing, or both reach no common quality.
    """
    curves = [_log_rate(points, name, fit) for points, name in ((anchor, "anchor"), (test, "test"))]
    low = max(quality[0] for quality, _ in curves)
    high = min(quality[-1] for quality, _ in curves)
    if low >= high:
        raise UserError("the two curves have no quality in common", "measure more points")
    first, second = (integral(low, high) for _, integral in curves)
    return 100 * math.expm1((second - first) / (high - low))


Integral = Callable[[float, float], float]


def _log_rate(points: Points, name: str, fit: str) -> tuple[NDArray[np.float64], Integral]:
    """The qualities of a curve in order, and the integral of its log rate between two of them."""
    rate, quality = np.array(sorted(points, key=lambda point: point[1]), float).T
    least = 4 if fit == "cubic" else 2
    if len(rate) < least:
        raise UserError(f"the {name} curve has {len(rate)} points", f"{fit} needs {least}")
    if (np.diff(rate) <= 0).any() or (np.diff(quality) <= 0).any() or (rate <= 0).any():
        raise UserError(f"the {name} curve does not rise from point to point", "leave points out")
    if fit == "cubic":
        antiderivative = np.poly1d(np.polyfit(quality, np.log(rate), 3)).integ()
        return quality, lambda low, high: float(antiderivative(high) - antiderivative(low))
    curve = PchipInterpolator(quality, np.log(rate))
    return quality, lambda low, high: float(curve.integrate(low, high))
