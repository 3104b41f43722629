"""What papers on medical classification report: accuracy, AUC, precision, recall, F1, specificity.

Defined as MedMNIST and MedViTV2 do: AUC is the mean over classes of one against the rest; a picture with
several findings counts each finding as a decision of its own, at a threshold of one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from sklearn.metrics import multilabel_confusion_matrix, precision_recall_fscore_support, roc_auc_score

from opsin.registry import METRICS

Array = NDArray[np.float64]


@METRICS.register_module()
class DiagnosisMetric(BaseMetric):
    """`medical/accuracy`, `auc`, `precision`, `recall`, `f1`, `specificity`, `balanced_error`, all in [0, 1].

    Specificity is the mean over classes, and `balanced_error` one minus the mean recall of the classes. A
    class that the data lack has no AUC; if none has one, it is NaN.

    Args:
        average: of precision, recall and F1 over classes: 'weighted' by number, as published, or 'macro'.
        collect_device: see mmengine's `BaseMetric`.
    """

    default_prefix = "medical"

    def __init__(
        self, average: Literal["weighted", "macro"] = "weighted", collect_device: str = "cpu"
    ) -> None:
        super().__init__(collect_device)
        self.average = average

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps scores and label of each sample (`pred_scores`, `gt_label`)."""
        for sample in data_samples:
            scores = np.asarray(sample["pred_scores"].float().cpu(), np.float64)
            self.results.append((scores, np.asarray(sample["gt_label"].cpu())))

    def compute_metrics(self, results: list[tuple[Array, NDArray[Any]]]) -> dict[str, float]:
        """The measures over all samples."""
        scores = np.stack([score for score, _ in results])
        labels = np.stack([label for _, label in results])
        if labels.ndim == 2:
            truth, predicted = labels.astype(int), (scores > 0.5).astype(int)
            accuracy = float((truth == predicted).mean())
        else:
            truth, predicted = (np.eye(scores.shape[1], dtype=int)[c] for c in (labels, scores.argmax(1)))
            accuracy = float((labels == scores.argmax(1)).mean())
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, average=self.average, zero_division=0
        )
        tables = multilabel_confusion_matrix(truth, predicted)
        present = tables[:, 1].sum(1) > 0
        class_recall = tables[present, 1, 1] / tables[present, 1].sum(1)
        specificity = tables[:, 0, 0] / np.maximum(tables[:, 0].sum(1), 1)
        return {
            "accuracy": accuracy,
            "auc": mean_auc(truth, scores),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "specificity": float(specificity.mean()),
            "balanced_error": float(1 - class_recall.mean()),
        }


def mean_auc(truth: NDArray[np.int64], scores: Array) -> float:
    """Mean over the classes that have positives and negatives of the area under their ROC curves.

    Args:
        truth: (N, C) of zeros and ones.
        scores: (N, C).
    """
    areas = [
        roc_auc_score(column, score)
        for column, score in zip(truth.T, scores.T, strict=True)
        if 0 < column.sum() < len(column)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def relative_balanced_error(
    clean: float, corrupted: Mapping[str, float], baseline_clean: float, baseline: Mapping[str, float]
) -> float:
    """How much corruptions cost a model over how much they cost a baseline, as MedMNIST-C reports it (rBE).

    Args:
        clean: the model's balanced error without corruption.
        corrupted: its balanced error by corruption, the mean over severities.
        baseline_clean: the baseline's balanced error without corruption.
        baseline: the baseline's by corruption.

    Returns:
        The mean over corruptions of (error - clean error) / (the same of the baseline).

    Raises:
        ValueError: if the corruptions are not the same, or one costs the baseline nothing.
    """
    if corrupted.keys() != baseline.keys():
        raise ValueError(f"corruptions {sorted(corrupted)} and the baseline's {sorted(baseline)}")
    costs = {kind: error - baseline_clean for kind, error in baseline.items()}
    if not all(cost > 0 for cost in costs.values()):
        raise ValueError("a corruption costs the baseline nothing: there is no relative error")
    return float(np.mean([(error - clean) / costs[kind] for kind, error in corrupted.items()]))
