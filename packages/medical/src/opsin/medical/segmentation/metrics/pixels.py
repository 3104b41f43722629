"""Skin lesions: overlap and accuracy over the pixels of all pictures together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from opsin.registry import METRICS


@METRICS.register_module()
class PooledPixelMetric(BaseMetric):
    """Of one class, over all pixels: `seg/dice`, `iou`, `accuracy`, `sensitivity` and `specificity`.

    A soft mask counts as yes from 0.5 on. Where there is nothing to count (no yes in any picture), a number
    is 1 if nothing was found either, else 0.

    Args:
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "seg"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts true and false, positive and negative pixels of a batch."""
        for sample in data_samples:
            found = sample["pred_label"].numpy() > 0
            true = sample["gt_label"].float().numpy() >= 0.5
            counts = (found & true, found & ~true, ~found & true, ~found & ~true)
            self.results.append([int(c.sum()) for c in counts])

    def compute_metrics(self, results: list[list[int]]) -> dict[str, float]:
        """The five numbers."""
        tp, fp, fn, tn = np.sum(results, axis=0).tolist()
        return {
            "dice": _ratio(2 * tp, 2 * tp + fp + fn),
            "iou": _ratio(tp, tp + fp + fn),
            "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
            "sensitivity": _ratio(tp, tp + fn),
            "specificity": _ratio(tn, tn + fp),
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
