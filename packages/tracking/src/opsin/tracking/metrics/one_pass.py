"""One-pass evaluation: a tracker starts at the first frame's truth and runs to the end.

Success is the area under the success curve, precision the share of centres within 20 pixels, normalised
precision that within 0.2 of the box's sides (TrackingNet), each in percent and a mean over sequences. AO,
SR0.5 and SR0.75 are GOT-10k's: mean overlap, and share above 0.5 and 0.75, over the frames of all sequences
but each one's first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.tracking.datasets.sequence import VideoSequence
from opsin.tracking.metrics.overlap import (
    NORMALISED_AT,
    PRECISION_AT,
    Array,
    centre_distance,
    iou,
    normalised_distance,
    success_curve,
)


@dataclass(frozen=True)
class SequenceScores:
    """What one sequence's result is worth.

    Attributes:
        success, precision, normalised_precision: shares, 0 to 1.
        overlaps: of the frames that count for AO and SR.
    """

    success: float
    precision: float
    normalised_precision: float
    overlaps: Array


def evaluate_sequence(boxes: NDArray[Any], sequence: VideoSequence) -> SequenceScores:
    """Scores a result against its truth.

    The first frame's result is the truth; a result without width or height is the frame's before. Frames in
    which the target cannot be seen count as misses, as in LaSOT's published protocol; where there is no
    annotation at all (NaN, UAV123) they do not count for success, and for precision are misses.

    Args:
        boxes: x, y, w, h (N, 4).
        sequence: with truth for its N frames.

    Raises:
        UserError: if the numbers of rows differ.
    """
    truth, visible = sequence.boxes, sequence.visible
    if len(boxes) != len(truth):
        raise UserError(f"the result of {sequence.name} has {len(boxes)} rows and the truth {len(truth)}")
    boxes = repaired(boxes, truth[0])
    known = np.isfinite(truth).all(1)
    seen = visible & known
    overlaps = np.where(seen, iou(boxes, truth), -1.0)
    far = np.where(seen, centre_distance(boxes, truth), np.inf)
    normalised = np.where(seen, normalised_distance(boxes, truth), np.inf)
    later = seen.copy()
    later[0] = False
    return SequenceScores(
        float(success_curve(overlaps[known]).mean()),
        float((far <= PRECISION_AT).mean()),
        float((normalised <= NORMALISED_AT).mean()),
        iou(boxes, truth)[later],
    )


def repaired(boxes: NDArray[Any], first: NDArray[Any]) -> Array:
    """A result whose first row is the truth, and whose rows without an area repeat the row before."""
    boxes = np.array(boxes, np.float64)
    boxes[0] = first
    for row in np.flatnonzero(~(boxes[:, 2:] > 0).all(1)):
        if row:
            boxes[row] = boxes[row - 1]
    return boxes


def summarise(scores: Sequence[SequenceScores]) -> dict[str, float]:
    """The benchmark's numbers, in percent."""
    overlaps = np.concatenate([s.overlaps for s in scores])
    if not len(overlaps):  # sequences of one frame
        overlaps = np.full(1, np.nan)
    shares = {
        "success": np.mean([s.success for s in scores]),
        "precision": np.mean([s.precision for s in scores]),
        "norm_precision": np.mean([s.normalised_precision for s in scores]),
        "ao": overlaps.mean(),
        "sr50": (overlaps > 0.5).mean(),
        "sr75": (overlaps > 0.75).mean(),
    }
    return {name: 100 * float(share) for name, share in shares.items()}


def summarise_subsets(
    scores: Mapping[str, SequenceScores], subsets: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """`summarise` of all, and of named groups of sequences as `name/…`."""
    numbers = summarise(list(scores.values()))
    for name, members in subsets.items():
        group = [scores[member] for member in members if member in scores]
        numbers |= {f"{name}/{key}": value for key, value in (summarise(group) if group else {}).items()}
    return numbers


@METRICS.register_module()
class OnePassEvaluation(BaseMetric):
    """`track/success`, `precision`, `norm_precision`, `ao`, `sr50`, `sr75` in percent, and `track/fps`.

    Args:
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "track"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Scores the sequences of a batch.

        Raises:
            UserError: if a sequence's truth is on a benchmark's server.
        """
        for sample in data_samples:
            sequence = sample["sequence"]
            if not sequence.has_truth:
                raise UserError(
                    f"sequence {sequence.name} has no truth beyond its first frame",
                    "write result files with `opsin track-benchmark` and send them to the benchmark's server",
                )
            scores = evaluate_sequence(sample["pred_boxes"].numpy(), sequence)
            self.results.append((scores, float(sample["seconds"].sum()), len(sequence.frames)))

    def compute_metrics(self, results: list[tuple[SequenceScores, float, int]]) -> dict[str, float]:
        """The means."""
        seconds, frames = sum(row[1] for row in results), sum(row[2] for row in results)
        return {**summarise([row[0] for row in results]), "fps": frames / seconds if seconds else 0.0}
