"""Angles between predicted and true surface normals, over the pixels of all pictures together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
BINS = 18000  # of the histogram that the median is read from: 0.01 degrees each


def angles(predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Degrees (N,) between vectors (3, H, W), for the N pixels whose truth is known (not 0)."""
    known = (truth != 0).any(0)
    a, b = (x[:, known].astype(np.float64) for x in (predicted, truth))
    # The angle by both sine and cosine: arccos alone is inexact where it matters, near 0.
    cross = np.linalg.norm(np.cross(a, b, axis=0), axis=0)
    degrees: NDArray[np.float64] = np.degrees(np.arctan2(cross, (a * b).sum(0)))
    return degrees


@METRICS.register_module()
class NormalQuality(BaseMetric):
    """`normals/mean`, `median` and `rmse` in degrees, and percent within 11.25, 22.5 and 30 degrees.

    The median is exact to 0.01 degrees, so that no picture's angles need be kept.

    Raises:
        UserError: if sizes differ, or no pixel has a true normal.
    """

    default_prefix = "normals"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures the `pred_normals` of a batch against `gt_normals`."""
        for sample in data_samples:
            predicted, truth = (sample[key]["data"].cpu().numpy() for key in ("pred_normals", "gt_normals"))
            if predicted.shape != truth.shape:
                sizes = " and ".join(f"{a.shape[2]}x{a.shape[1]}" for a in (predicted, truth))
                raise UserError(f"prediction and normals of {sample.get('img_path')} differ in size: {sizes}")
            found = angles(predicted, truth)
            within = [int((found < threshold).sum()) for threshold in THRESHOLDS]
            histogram = np.histogram(found, BINS, (0.0, 180.0))[0].astype(np.int32)
            sums = (len(found), float(found.sum()), float((found**2).sum()))
            self.results.append((sums, within, histogram))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """The values over all pixels."""
        count, total, squares = np.sum([sums for sums, _, _ in results], 0)
        if not count:
            raise UserError("no picture has a pixel whose normal is known")
        cumulated = np.cumsum(np.sum([histogram for _, _, histogram in results], 0))
        median = (np.searchsorted(cumulated, count / 2) + 0.5) * 180 / BINS
        within = np.sum([w for _, w, _ in results], 0)
        return {
            "mean": float(total / count),
            "median": float(median),
            "rmse": float(np.sqrt(squares / count)),
            **{
                f"{threshold:g}": 100 * float(w / count)
                for threshold, w in zip(THRESHOLDS, within, strict=True)
            },
        }
