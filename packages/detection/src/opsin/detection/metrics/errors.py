"""What is wrong with detections: each wrong one, and each object that was missed, under one heading.

The headings are those of TIDE (A General Toolbox for Identifying Object Detection Errors, arXiv 2008.08115).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

KINDS = ("confusion", "localisation", "both", "duplicate", "background", "missed")

FOREGROUND, BACKGROUND = 0.5, 0.1
"""A detection is of an object from the first IoU on, and of nothing below the second."""


@dataclass
class ErrorCount:
    """What was found over a data set of C classes.

    `matrix` (C + 1, C + 1) counts objects by true class (row) and predicted class (column); the last row is
    detections where there is no object, the last column objects that nothing was found at.
    """

    num_classes: int
    correct: int = 0
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    matrix: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.num_classes + 1, self.num_classes + 1), np.int64)

    def add(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        labels: NDArray[np.int64],
        true_boxes: NDArray[np.float32],
        true_labels: NDArray[np.int64],
    ) -> None:
        """Counts one image.

        Args:
            boxes: (N, 4) of the detections, x1 y1 x2 y2.
            scores: (N,); the surest detection of an object counts.
            labels: (N,).
            true_boxes: (G, 4) of the objects.
            true_labels: (G,).
        """
        overlap = overlaps(boxes, true_boxes)
        same = labels[:, None] == true_labels[None]
        taken = np.zeros(len(true_boxes), bool)  # by a correct detection
        explained = taken.copy()  # by a detection with the wrong class or place
        seen = taken.copy()  # by a detection of whatever class
        for index in np.argsort(-scores, kind="stable"):
            row, own = overlap[index], same[index]
            place = _best(row, ~taken & own)
            if place is not None and row[place] >= FOREGROUND:
                taken[place] = True
                self.correct += 1
            else:
                kind, place = _kind(row, own)
                self.errors[kind] += 1
                if place is not None and kind in ("confusion", "localisation"):
                    explained[place] = True
            met = _best(row, ~seen)
            if met is not None and row[met] >= FOREGROUND:
                seen[met] = True
                self.matrix[true_labels[met], labels[index]] += 1
            elif not (row >= FOREGROUND).any():
                self.matrix[-1, labels[index]] += 1
        self.errors["missed"] += int((~taken & ~explained).sum())
        self.matrix[:-1, -1] += np.bincount(true_labels[~seen], minlength=self.num_classes)


def overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU (N, G) of boxes (N, 4) and (G, 4)."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(end - corner, 0, None).prod(-1)
    area, other = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, others))
    found: NDArray[np.float32] = shared / np.maximum(area[:, None] + other[None] - shared, 1e-9)
    return found


def _best(row: NDArray[np.float32], allowed: NDArray[np.bool_]) -> int | None:
    """The allowed object with the largest IoU."""
    return int(np.where(allowed, row, -1).argmax()) if allowed.any() else None


def _kind(row: NDArray[np.float32], own: NDArray[np.bool_]) -> tuple[str, int | None]:
    """The heading of a wrong detection, and the object that it is about."""
    if not len(row) or row.max() < BACKGROUND:
        return "background", None
    mine = _best(row, own)
    if mine is not None and row[mine] >= FOREGROUND:
        return "duplicate", mine
    if mine is not None and row[mine] >= BACKGROUND:
        return "localisation", mine
    other = int(row.argmax())
    return ("confusion" if row[other] >= FOREGROUND else "both"), other
