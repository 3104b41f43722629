"""Top-k accuracy and mean accuracy of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from opsin.registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentages: `accuracy/top1`, `accuracy/top5`, and `accuracy/class_mean`, the classes' mean.

    What is kept of a sample is the rank of its class among the scores, so memory does not grow with the
    number of classes. A class that shares its score with others ranks last among them, and so does a score
    that is not a number.

    Args:
        topk: which k to report.
        collect_device: see mmengine's `BaseMetric`.
    """

    default_prefix = "accuracy"

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = "cpu") -> None:
        super().__init__(collect_device)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps class and rank of each sample (`gt_label`, `pred_scores`)."""
        for sample in data_samples:
            scores, label = sample["pred_scores"], int(sample["gt_label"])
            self.results.append((label, int((~(scores < scores[label])).sum()) - 1))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """The percentages over all samples."""
        labels, ranks = np.array(results).T
        metrics = {f"top{k}": 100.0 * float((ranks < k).mean()) for k in self.topk}
        class_accuracies = [(ranks[labels == label] < 1).mean() for label in np.unique(labels)]
        return {**metrics, "class_mean": 100.0 * float(np.mean(class_accuracies))}
