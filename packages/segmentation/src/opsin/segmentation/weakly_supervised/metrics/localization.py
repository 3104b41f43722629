"""How weakly supervised localisation is measured: is the class right, and does the box fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.segmentation.weakly_supervised.models.map_to_box import box_iou, largest_box

HALF = 0.5
THRESHOLDS = np.arange(0, 1, 0.05)
LEVELS = (0.3, 0.5, 0.7)  # IoUs of MaxBoxAccV2


@METRICS.register_module()
class LocalizationMetric(BaseMetric):
    """Shares of the pictures, in percent, under the prefix `localization`.

    * `gt_known`: the box has an IoU of at least 0.5, with any of the picture's boxes where it has several;
    * `top1_loc`, `top5_loc`: moreover the class is the best, or among the five best;
    * `top1`, `top5`: of the class alone;
    * `max_box_acc`: the mean over IoUs of 0.3, 0.5 and 0.7 of `gt_known` at the best threshold of the map (as
      MaxBoxAccV2 of arXiv 2001.07437, but with the largest part's box alone).

    Args:
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "localization"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures `pred_box`, `pred_map` and `pred_scores` against `gt_boxes` and `gt_label`."""
        for sample in data_samples:
            lacking = [key for key in ("gt_boxes", "gt_label") if key not in sample]
            if lacking:
                raise UserError(f"{sample.get('img_path')} has no {lacking[0]} to measure against")
            truths = sample["gt_boxes"].cpu().numpy()
            best = sample["pred_scores"].topk(min(5, len(sample["pred_scores"]))).indices.tolist()
            heat = sample["pred_map"].cpu().numpy()
            swept = [_best_iou(largest_box(heat, threshold), truths) for threshold in THRESHOLDS]
            label = int(sample["gt_label"])
            iou = _best_iou(sample["pred_box"].cpu().numpy(), truths)
            self.results.append((iou, label == best[0], label in best, swept))

    def compute_metrics(self, results: list[tuple[float, bool, bool, list[float]]]) -> dict[str, float]:
        """The shares."""
        ious, first, five, swept = (np.array(column) for column in zip(*results, strict=True))
        fits = ious >= HALF
        accuracies = [float((swept >= level).mean(0).max()) for level in LEVELS]
        return {
            "gt_known": _percent(fits),
            "top1_loc": _percent(fits & first),
            "top5_loc": _percent(fits & five),
            "top1": _percent(first),
            "top5": _percent(five),
            "max_box_acc": 100 * float(np.mean(accuracies)),
        }


def _best_iou(box: NDArray[Any], truths: NDArray[Any]) -> float:
    return max(box_iou(box, truth) for truth in truths)


def _percent(right: NDArray[np.bool_]) -> float:
    return 100 * float(right.mean())
