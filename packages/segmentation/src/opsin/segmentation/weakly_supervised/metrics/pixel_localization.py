"""How maps are measured against masks, pixel by pixel over the whole data set (arXiv 2001.07437)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS

STEPS = 1000  # thresholds between 0 and 1


@METRICS.register_module()
class PixelLocalizationMetric(BaseMetric):
    """Over all thresholds of the maps, in percent, under the prefix `localization`.

    * `pxap`: area under the curve of the pixels' precision over their recall, as steps;
    * `peak_iou`: the greatest IoU of what lies above a threshold (PIoU).

    All pixels of the data set count alike; those of 255 in the mask don't.

    Args:
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "localization"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts the values of `pred_map` inside and outside `gt_sem_seg`."""
        for sample in data_samples:
            if "gt_sem_seg" not in sample:
                raise UserError(f"{sample.get('img_path')} has no mask to measure against")
            mask = sample["gt_sem_seg"]["data"][0].cpu().numpy()
            heat = sample["pred_map"].cpu().numpy()
            self.results.append(np.stack([_counts(heat[mask == value]) for value in (1, 0)]))

    def compute_metrics(self, results: list[NDArray[np.int64]]) -> dict[str, float]:
        """Both measures.

        Raises:
            UserError: if no mask has an object.
        """
        # from the highest threshold down: pixels above it inside and outside the objects
        right, wrong = np.sum(results, 0)[:, ::-1].cumsum(1)
        if right[-1] == 0:
            raise UserError("no mask shows an object: pixels can't be measured")
        precision = right / np.maximum(right + wrong, 1)
        recall = right / right[-1]
        return {
            "pxap": 100 * float((precision * np.diff(recall, prepend=0)).sum()),
            "peak_iou": 100 * float((right / (right[-1] + wrong)).max()),
        }


def _counts(values: NDArray[Any]) -> NDArray[np.int64]:
    """How many values begin at each threshold: in [0, 0.001), [0.001, 0.002), …, and from 1 on."""
    steps = (values.astype(np.float64) * STEPS).astype(np.int64).clip(0, STEPS)
    return np.bincount(steps, minlength=STEPS + 1)
