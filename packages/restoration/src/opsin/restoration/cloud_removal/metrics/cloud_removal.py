"""PSNR and SSIM of cloud removal, on the 8-bit pictures that people look at, and errors of reflectance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.restoration.cloud_removal.visualization import display_rgb
from opsin.restoration.metrics.psnr_ssim import WINDOW, psnr, ssim


@METRICS.register_module()
class CloudRemovalMetric(BaseMetric):
    """Means over places of `cloud/psnr`, `cloud/ssim` and `cloud/mae`.

    PSNR and SSIM are the published ones: of `display_rgb` of result and truth, which for reflectances
    stretches
    *each by its own values*, so a result that is too dark or too flat as a whole loses nothing. `cloud/mae`
    sees that: it is the mean absolute error over all bands in the stored units (10000 is reflectance 1).
    """

    default_prefix = "cloud"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the places of a batch: `pred_img` against `gt_img`, both (C, H, W) uint8 or uint16.

        Raises:
            UserError: if a picture is smaller than SSIM's window, or result and truth differ in bands.
        """
        for sample in data_samples:
            image, truth = (sample[key].cpu().numpy().transpose(1, 2, 0) for key in ("pred_img", "gt_img"))
            if image.shape != truth.shape:
                raise UserError(
                    f"{sample.get('gt_path')} has {truth.shape[2]} bands, and the network gives "
                    f"{image.shape[2]}",
                    "set model.network.out_channels",
                )
            if min(truth.shape[:2]) < WINDOW:
                raise UserError(
                    f"{sample.get('gt_path')} is too small to measure", f"sides of {WINDOW} are needed"
                )
            shown, expected = display_rgb(image), display_rgb(truth)
            error = np.abs(image.astype(np.float64) - truth).mean()
            self.results.append(
                {"psnr": psnr(shown, expected), "ssim": ssim(shown, expected), "mae": float(error)}
            )

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """The means."""
        return {name: float(np.mean([row[name] for row in results])) for name in results[0]}
