"""Precision, recall and their harmonic mean of detected polygons, as text detectors are compared."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.ocr.text_detection.polygons import Polygon, min_area_rectangle, polygon_shape
from opsin.registry import METRICS

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""Score thresholds that are tried."""


@METRICS.register_module()
class PolygonHmean(BaseMetric):
    """The protocol of ICDAR 2015, on polygons of any shape.

    A detection more than half of whose area lies on one don't-care region counts for nothing. The others,
    highest score first, each take the text of largest IoU that is still free, if that is at least 0.5: one
    text, one detection. Texts found over all texts is recall, over all detections that count is precision,
    both over the pictures of the data set together (micro), and H-mean is 2PR / (P + R).

    Samples carry the truth as `instances` and the answer as `pred_instances`, with `polygons`, a list of
    (corners, 2) in pixels of the original picture, and `scores`. Gives `text/hmean`, `text/precision`,
    `text/recall` of detections with `score_threshold` or more, and with `sweep` `text/best_hmean` and
    `text/best_threshold`, the score threshold at which H-mean is highest (choose it on a validation split: on
    the test split it flatters).

    Args:
        score_threshold: score from which a detection counts.
        iou_threshold: IoU from which a text is found.
        dont_care_overlap: share of a detection's area on a don't-care region above which it is left out.
        sweep: score thresholds to try; empty for none.
        submission: a zip file to write with what ICDAR's server takes, `res_NAME.txt` of a picture NAME and
            the corners `x1,y1,…,x4,y4` of the smallest rectangle around each detection that counts.
        **kwargs: mmengine's `collect_device` and `prefix`.

    Raises:
        UserError: when there is no text to be found in the data (recall is undefined then).
    """

    default_prefix = "text"

    def __init__(
        self,
        *,
        score_threshold: float = 0.5,
        iou_threshold: float = 0.5,
        dont_care_overlap: float = 0.5,
        sweep: Sequence[float] = THRESHOLDS,
        submission: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.dont_care_overlap = dont_care_overlap
        self.sweep = tuple(sweep)
        self.submission = submission

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Compares truth and answer of each picture of a batch."""
        for sample in data_samples:
            predicted = sample["pred_instances"]
            scores = np.asarray(predicted["scores"].cpu(), np.float64)
            found, counted = match(
                predicted["polygons"],
                scores,
                [i["polygon"] for i in sample["instances"]],
                [i["ignore"] for i in sample["instances"]],
                iou_threshold=self.iou_threshold,
                dont_care_overlap=self.dont_care_overlap,
            )
            texts = sum(not i["ignore"] for i in sample["instances"])
            result = {"scores": scores[counted], "found": found[counted], "texts": texts}
            if self.submission is not None:
                chosen = np.flatnonzero(scores >= self.score_threshold)
                result["lines"] = [_line(predicted["polygons"][index]) for index in chosen]
                result["name"] = Path(sample["img_path"]).stem
            self.results.append(result)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The numbers over all pictures."""
        texts = sum(result["texts"] for result in results)
        if not texts:
            raise UserError("the evaluation data have no text to be found", "recall is undefined then")
        scores = np.concatenate([result["scores"] for result in results])
        found = np.concatenate([result["found"] for result in results])
        precision, recall, hmean = precision_recall_hmean(found[scores >= self.score_threshold], texts)
        metrics = {
            "hmean": hmean,
            "precision": precision,
            "recall": recall,
        }
        if self.sweep:
            swept = {t: precision_recall_hmean(found[scores >= t], texts)[2] for t in self.sweep}
            best = max(swept, key=lambda threshold: swept[threshold])
            metrics |= {"best_hmean": swept[best], "best_threshold": best}
        if self.submission is not None:
            write_atomically(self.submission, _archive(results))
        return metrics


def precision_recall_hmean(found: NDArray[np.bool_], texts: int) -> tuple[float, float, float]:
    """The three numbers; `found` says which detections found a text, `texts` how many there are (not 0)."""
    hits = int(found.sum())
    precision, recall = hits / len(found) if len(found) else 0.0, hits / texts
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


def match(
    detections: Sequence[Polygon],
    scores: NDArray[np.float64],
    texts: Sequence[Polygon],
    ignored: Sequence[bool],
    *,
    iou_threshold: float = 0.5,
    dont_care_overlap: float = 0.5,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections of a picture find a text, and which count at all.

    What a detection finds depends on those of higher score alone, so that the answer for any score threshold
    is a part of this one.

    Args:
        detections: D polygons (corners, 2).
        scores: (D,).
        texts: T polygons of the truth.
        ignored: which of these are don't-care regions.
        iou_threshold: least IoU of a find.
        dont_care_overlap: see `PolygonHmean`.

    Returns:
        Two arrays (D,).
    """
    shapes = np.array([polygon_shape(polygon) for polygon in detections], object)
    truth = np.array([polygon_shape(polygon) for polygon in texts], object)
    care = ~np.array(ignored, bool).reshape(-1)
    found = np.zeros(len(shapes), bool)
    if not len(shapes) or not len(truth):
        return found, ~found
    areas = shapely.area(shapes)
    shared = shapely.area(shapely.intersection(shapes[:, None], truth[None]))
    share = shared / np.maximum(areas, np.finfo(float).tiny)[:, None]
    counted = ~(share[:, ~care] > dont_care_overlap).any(axis=1)
    union = areas[:, None] + shapely.area(truth) - shared
    iou = np.where(care, shared / np.maximum(union, np.finfo(float).tiny), 0.0)
    for detection in np.argsort(-scores, kind="stable"):
        best = int(iou[detection].argmax())
        if counted[detection] and iou[detection, best] >= iou_threshold:
            found[detection] = True
            iou[:, best] = 0  # a text is found once
    return found, counted


def _line(polygon: Polygon) -> str:
    return ",".join(str(value) for value in np.rint(min_area_rectangle(polygon)).astype(int).reshape(-1))


def _archive(results: list[dict[str, Any]]) -> bytes:
    """The zip file of a submission."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for result in results:
            lines = "".join(f"{line}\n" for line in result["lines"])
            archive.writestr(f"res_{result['name']}.txt", lines)
    return content.getvalue()
