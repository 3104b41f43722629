"""Errors of predicted depth, as monocular depth estimation counts them (Eigen et al., arXiv 1406.2283)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS

EIGEN_CROP = (slice(45, 471), slice(41, 601))  # of NYUv2's 480x640: the rest is white border or unreliable
EIGEN_SIZE = (480, 640)
FACTOR = 1.25


def depth_errors(predicted: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Errors over equally many positive depths, (N,) in metres.

    `rmse` in metres; `abs_rel` mean of |p - d| / d; `log10` mean of |log10 p - log10 d|; `d1`, `d2`, `d3`
    shares with max(p / d, d / p) below 1.25, 1.25², 1.25³ (higher is better).
    """
    p, d = predicted.astype(np.float64), truth.astype(np.float64)
    ratio = np.maximum(p / d, d / p)
    errors = {
        "rmse": np.sqrt(np.mean((p - d) ** 2)),
        "abs_rel": np.mean(np.abs(p - d) / d),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(d))),
    }
    errors |= {f"d{power}": np.mean(ratio < FACTOR**power) for power in (1, 2, 3)}
    return {name: float(value) for name, value in errors.items()}


@METRICS.register_module()
class DepthQuality(BaseMetric):
    """Means over pictures of `depth/rmse`, `abs_rel`, `log10`, `d1`, `d2`, `d3`.

    Args:
        min_depth: metres; truths below it do not count, and predictions are raised to it.
        max_depth: metres; truths above it do not count, and predictions are lowered to it.
        eigen_crop: count only the usual part of NYUv2's 480x640 pictures.
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: if no picture has a pixel that counts, sizes differ, or the crop does not fit.
    """

    default_prefix = "depth"

    def __init__(
        self, *, min_depth: float = 1e-3, max_depth: float = 10.0, eigen_crop: bool = False, **base: Any
    ) -> None:
        super().__init__(**base)
        self.min_depth, self.max_depth, self.eigen_crop = min_depth, max_depth, eigen_crop

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the `pred_depth_map` of a batch against `gt_depth_map`."""
        for sample in data_samples:
            predicted, truth = (
                sample[key]["data"][0].cpu().numpy() for key in ("pred_depth_map", "gt_depth_map")
            )
            if predicted.shape != truth.shape:
                sizes = " and ".join(f"{a.shape[1]}x{a.shape[0]}" for a in (predicted, truth))
                raise UserError(f"prediction and depth of {sample.get('img_path')} differ in size: {sizes}")
            counts = (truth >= self.min_depth) & (truth <= self.max_depth)
            if self.eigen_crop:
                counts &= self._inside(truth.shape, sample.get("img_path"))
            found = predicted[counts].clip(self.min_depth, self.max_depth)
            self.results.append(depth_errors(found, truth[counts]) if counts.any() else None)

    def _inside(self, shape: tuple[int, ...], path: Any) -> NDArray[np.bool_]:
        if shape != EIGEN_SIZE:
            raise UserError(
                f"eigen_crop is for pictures of 640x480, {path} has {shape[1]}x{shape[0]}",
                "set eigen_crop=False",
            )
        inside = np.zeros(shape, bool)
        inside[EIGEN_CROP] = True
        return inside

    def compute_metrics(self, results: list[dict[str, float] | None]) -> dict[str, float]:
        """The means over the pictures with depth."""
        measured = [row for row in results if row is not None]
        if not measured:
            raise UserError(f"no picture has depth between {self.min_depth} and {self.max_depth} metres")
        return {name: float(np.mean([row[name] for row in measured])) for name in measured[0]}
