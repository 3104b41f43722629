"""A closer look at a detector: AP of each class, precision-recall curves, confusions, kinds of errors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from opsin.core.files import write_atomically
from opsin.detection.metrics.coco_ap import CocoAP, predictions
from opsin.detection.metrics.errors import ErrorCount
from opsin.detection.palette import palette
from opsin.registry import METRICS

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision."""


@METRICS.register_module()
class DetectionAnalysis(CocoAP):
    """Writes `analysis.json`, `precision_recall.png` and `confusion.png`, all of boxes at IoU 0.5.

    Beside COCO's AP by class it gives `analysis/correct` and `analysis/KIND` for every kind of error of
    `opsin.detection.metrics.errors`, counted over detections that score at least `score_thr`. Add it to a
    config's evaluators: `test_evaluator = [dict(type="opsin.CocoAP"), dict(type="opsin.DetectionAnalysis",
    out="analysis")]`.

    Args:
        out: folder for the files; made if it is not there.
        score_thr: detections below it count neither as errors nor as confusions.
        **kwargs: mmengine's `collect_device` and `prefix`.
    """

    default_prefix = "analysis"

    def __init__(self, *, out: str, score_thr: float = 0.3, **kwargs: Any) -> None:
        super().__init__(kinds=("bbox",), **kwargs)
        self.out, self.score_thr = Path(out), score_thr

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Writes the files and gives the counts."""
        classes = list(self.dataset_meta["classes"])
        curves = self._curves(results, classes)
        count = self._count(results, len(classes))
        content = {
            "score_thr": self.score_thr,
            "AP_50": {name: float(curve.mean()) for name, curve in curves.items()},
            "correct": count.correct,
            "errors": count.errors,
            "classes": [*classes, "background"],
            "confusion": count.matrix.tolist(),
        }
        write_atomically(self.out / "analysis.json", (json.dumps(content, indent=1) + "\n").encode())
        write_atomically(self.out / "precision_recall.png", draw_curves(curves))
        write_atomically(self.out / "confusion.png", draw_confusion(count.matrix, [*classes, "background"]))
        return {"correct": float(count.correct), **{k: float(v) for k, v in count.errors.items()}}

    def _curves(self, results: list[dict[str, Any]], classes: list[str]) -> dict[str, NDArray[np.float64]]:
        """Precision at the 101 recalls of every class that the ground truth has."""
        if not any(result["instances"] for result in results):
            return {}
        truth = COCO(self._ground_truth(results, with_masks=False))
        found = truth.loadRes(predictions(results, "bbox"))
        evaluation = COCOeval_faster(truth, found, "bbox", print_function=lambda *_: None)
        evaluation.run()
        precision = evaluation.eval["precision"][0, :, :, 0, -1]  # IoU 0.5, all areas, most detections
        return {name: precision[:, i] for i, name in enumerate(classes) if precision[0, i] >= 0}

    def _count(self, results: list[dict[str, Any]], num_classes: int) -> ErrorCount:
        count = ErrorCount(num_classes)
        for result in results:
            predicted = result["predicted"]
            sure = predicted["scores"] >= self.score_thr
            objects = [o for o in result["instances"] if not o["ignore_flag"]]
            count.add(
                predicted["bboxes"][sure],
                predicted["scores"][sure],
                predicted["labels"][sure],
                np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4),
                np.array([o["bbox_label"] for o in objects], np.int64),
            )
        return count


def draw_curves(curves: dict[str, NDArray[np.float64]]) -> bytes:
    """PNG of precision over recall, a line for each class with its AP."""
    figure, axes = _figure(7.0, 5.0)
    for (name, curve), colour in zip(curves.items(), palette(len(curves)), strict=True):
        axes.plot(RECALLS, curve, label=f"{name} {curve.mean():.2f}", color=np.array(colour) / 255)
    axes.set(xlabel="recall", ylabel="precision at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    if curves:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _png(figure)


def draw_confusion(matrix: NDArray[np.int64], names: list[str]) -> bytes:
    """PNG of a confusion matrix, rows in shares of their objects, cells with counts."""
    figure, axes = _figure(2.5 + 0.45 * len(names), 2.0 + 0.45 * len(names))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.argwhere(matrix):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="found as", ylabel="is")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
