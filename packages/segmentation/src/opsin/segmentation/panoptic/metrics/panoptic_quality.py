"""Panoptic quality as panopticapi defines it ("Panoptic Segmentation", arXiv 1801.00868).

A predicted and a true segment of one class match when their IoU, counted without pixels that belong to no
true segment, exceeds 0.5. Per class PQ = sum of the matches' IoU / (TP + FP/2 + FN/2) = SQ · RQ. A predicted
segment that lies by more than half on pixels of no segment, or on a crowd of its class, is no false
positive; a crowd is neither found nor missed. Means run over the classes that occur.

Areas are counted in the PNGs, where panopticapi believes the true json's `area`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.segmentation.panoptic.datasets import check_ids, read_ids
from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET

IDS = 2**24  # of a PNG's 8-bit colours
MATCH = 0.5


@dataclass(frozen=True)
class SegmentMap:
    """A picture's segments.

    Args:
        index: (H, W), 0 where there is no segment, else which of the K segments, counted from 1.
        labels: (K,) class of each segment.
        crowd: (K,) whether it is a crowd.
    """

    index: NDArray[np.uint16]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @classmethod
    def of_ids(
        cls, ids: NDArray[Any], segments: Sequence[Mapping[str, Any]], path: str | Path = "the picture"
    ) -> SegmentMap:
        """From the ids of a PNG.

        Args:
            ids: (H, W), 0 for no segment.
            segments: each with `id`, `category` (a class index) and perhaps `iscrowd`.
            path: for messages.

        Raises:
            UserError: if a segment is painted but not listed, or listed but not painted.
        """
        check_ids(ids, segments, path)
        index = _positions(ids, np.array([segment["id"] for segment in segments], np.int64))
        labels = np.array([segment["category"] for segment in segments], np.int64)
        crowd = np.array([bool(segment.get("iscrowd", 0)) for segment in segments], bool)
        return cls(index, labels, crowd)

    @classmethod
    def of_panoptic(cls, panoptic: NDArray[Any], classes: int) -> SegmentMap:
        """From a panoptic map (H, W): label + 1000 · instance, and a label of `classes` for no segment."""
        present = np.flatnonzero(np.bincount(panoptic.ravel()))
        segments = present[present % INSTANCE_OFFSET < classes]
        table = np.zeros(int(present[-1]) + 1, np.uint16)
        table[segments] = np.arange(1, len(segments) + 1)
        return cls(table[panoptic], segments % INSTANCE_OFFSET, np.zeros(len(segments), bool))


@cache
def _id_table() -> NDArray[np.uint16]:
    """Zeros for every id, made once: the pages of a fresh table would cost more than the counting."""
    return np.zeros(IDS, np.uint16)


def _positions(ids: NDArray[Any], listed: NDArray[np.int64]) -> NDArray[np.uint16]:
    """For each of the ids (H, W) which of the listed ones it is, counted from 1, or 0."""
    table = _id_table()
    table[listed] = np.arange(1, len(listed) + 1)
    found = table[ids]
    table[listed] = 0
    return found


@dataclass(frozen=True)
class PQCounts:
    """Counts of every class, (classes,) each: summed IoU, true and false positives, false negatives."""

    iou: NDArray[np.float64]
    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    fn: NDArray[np.float64]

    @classmethod
    def total(cls, counts: Sequence[PQCounts]) -> PQCounts:
        """The sum over pictures."""
        return cls(*(np.sum([getattr(c, name) for c in counts], 0) for name in ("iou", "tp", "fp", "fn")))

    @property
    def occurs(self) -> NDArray[np.bool_]:
        """(classes,): whether there was anything of the class to find, or anything taken for it."""
        return self.tp + self.fp + self.fn > 0

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """`PQ`, `SQ` and `RQ` of every class, in 0..1; 0 where a class does not occur."""
        size = self.tp + self.fp / 2 + self.fn / 2
        values = {"PQ": (self.iou, size), "SQ": (self.iou, self.tp), "RQ": (self.tp, size)}
        return {name: a / np.where(b > 0, b, 1) for name, (a, b) in values.items()}

    def summary(self, things: int) -> dict[str, float]:
        """Means in percent over all classes (`PQ`), things (`PQ_th`) and stuff (`PQ_st`), and so SQ and RQ.

        Args:
            things: how many classes are things; they are the first.
        """
        number = np.arange(len(self.tp))
        groups = {"": number >= 0, "_th": number < things, "_st": number >= things}
        values = self.per_class()
        return {
            f"{name}{suffix}": 100 * float(np.mean(value[chosen])) if chosen.any() else 0.0
            for suffix, group in groups.items()
            for name, value in values.items()
            for chosen in [group & self.occurs]
        }


def compare(predicted: SegmentMap, truth: SegmentMap, classes: int) -> PQCounts:
    """The counts of one picture."""
    overlap = _overlaps(predicted, truth)  # rows: true segments, columns: predicted ones; 0 is no segment
    true_area, area = overlap.sum(1)[1:], overlap.sum(0)[1:]
    inner, on_void = overlap[1:, 1:], overlap[0, 1:]
    same = truth.labels[:, None] == predicted.labels
    union = true_area[:, None] + area - inner - on_void
    iou = np.where(same & ~truth.crowd[:, None], inner / np.maximum(union, 1), 0.0)
    matched = iou > MATCH
    on_crowd = (inner * (same & truth.crowd[:, None])).sum(0)
    excused = (on_void + on_crowd) / np.maximum(area, 1) > MATCH

    def by_class(labels: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(labels.astype(np.int64), weights, classes).astype(np.float64)

    return PQCounts(
        iou=by_class(truth.labels, (iou * matched).sum(1)),
        tp=by_class(truth.labels, matched.sum(1)),
        fp=by_class(predicted.labels, ~matched.any(0) & ~excused),
        fn=by_class(truth.labels, ~matched.any(1) & ~truth.crowd),
    )


def _overlaps(predicted: SegmentMap, truth: SegmentMap) -> NDArray[np.int64]:
    """(true segments + 1, predicted segments + 1): pixels that both share."""
    rows, columns = len(truth.labels) + 1, len(predicted.labels) + 1
    pairs = truth.index.astype(np.int32) * columns + predicted.index
    return np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)


@METRICS.register_module()
class PanopticQuality(BaseMetric):
    """`panoptic/PQ`, `SQ` and `RQ`, of things (`PQ_th`, …) and of stuff (`PQ_st`, …), in percent.

    The truth is read from the id PNGs in their own size, so a pipeline need not load annotations.

    Args:
        per_class: also give every class's values, as `PQ/NAME`.
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: if a PNG is missing, of another size, or differs from its `segments_info`.
    """

    default_prefix = "panoptic"

    def __init__(self, *, per_class: bool = False, **base: Any) -> None:
        super().__init__(**base)
        self.per_class = per_class

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, things first."""
        return tuple(self.dataset_meta["classes"])

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Compares the `pred_panoptic_seg` of a batch with the PNGs of `seg_map_path`."""
        for sample in data_samples:
            path = sample["seg_map_path"]
            truth = SegmentMap.of_ids(read_ids(path), sample["segments_info"], path)
            panoptic = sample["pred_panoptic_seg"]["sem_seg"][0].cpu().numpy()
            _same_size(panoptic, truth.index, path)
            predicted = SegmentMap.of_panoptic(panoptic, len(self.classes))
            self.results.append(compare(predicted, truth, len(self.classes)))

    def compute_metrics(self, results: list[PQCounts]) -> dict[str, float]:
        """The values in percent; a table of the classes goes to the log."""
        total = PQCounts.total(results)
        values = total.per_class()
        print_log("\n".join(_table(self.classes, values, total.occurs)), logger="current")
        metrics = total.summary(len(self.dataset_meta["thing_classes"]))
        if self.per_class:
            metrics |= {
                f"{name}/{label}": 100 * float(number)
                for name, numbers in values.items()
                for label, number in zip(self.classes, numbers, strict=True)
            }
        return metrics


def _table(
    classes: Sequence[str], values: Mapping[str, NDArray[np.float64]], occurs: NDArray[np.bool_]
) -> list[str]:
    width = max(map(len, classes))
    lines = [f"{'':{width}}  {'PQ':>6} {'SQ':>6} {'RQ':>6}"]
    for number, name in enumerate(classes):
        if occurs[number]:
            shown = " ".join(f"{100 * values[key][number]:6.1f}" for key in ("PQ", "SQ", "RQ"))
            lines.append(f"{name:{width}}  {shown}")
    return lines


def _same_size(predicted: NDArray[Any], truth: NDArray[Any], path: str | Path) -> None:
    if predicted.shape != truth.shape:
        sizes = " and ".join(f"{a.shape[1]}x{a.shape[0]}" for a in (predicted, truth))
        raise UserError(f"prediction and panoptic mask {path} differ in size: {sizes}")


def evaluate_files(
    truth: Path, truth_folder: Path, predicted: Path, predicted_folder: Path
) -> dict[str, float]:
    """Evaluates predictions in COCO's panoptic format against a truth in the same.

    Args:
        truth: json with `categories` and `annotations`.
        truth_folder: its PNGs.
        predicted: json with `annotations`.
        predicted_folder: its PNGs.

    Returns:
        The values of `PQCounts.summary`.

    Raises:
        UserError: if a picture has no prediction, a size differs, a category is unknown, or a PNG differs
            from its `segments_info`.
    """
    content = json.loads(Path(truth).read_text(encoding="utf-8"))
    categories = sorted(content["categories"], key=lambda category: not category["isthing"])
    labels = {category["id"]: label for label, category in enumerate(categories)}
    answers = json.loads(Path(predicted).read_text(encoding="utf-8"))["annotations"]
    by_image = {entry["image_id"]: entry for entry in answers}
    counts = []
    for entry in content["annotations"]:
        if entry["image_id"] not in by_image:
            raise UserError(f"{predicted} has no prediction for image {entry['image_id']}")
        true_path = Path(truth_folder) / entry["file_name"]
        path = Path(predicted_folder) / by_image[entry["image_id"]]["file_name"]
        true_map = _read(true_path, entry, labels)
        found = _read(path, by_image[entry["image_id"]], labels)
        _same_size(found.index, true_map.index, true_path)
        counts.append(compare(found, true_map, len(labels)))
    return PQCounts.total(counts).summary(sum(bool(category["isthing"]) for category in categories))


def _read(path: Path, entry: Mapping[str, Any], labels: Mapping[int, int]) -> SegmentMap:
    unknown = [s["category_id"] for s in entry["segments_info"] if s["category_id"] not in labels]
    if unknown:
        raise UserError(f"{path} has a segment of category {unknown[0]}, which the truth does not list")
    segments = [{**s, "category": labels[s["category_id"]]} for s in entry["segments_info"]]
    return SegmentMap.of_ids(read_ids(path), segments, path)
