"""Slices of subjects: Dice of each class over all slices, and over each subject's slices as one volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.engine.predictor import write_json
from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.medical.segmentation.datasets.pictures import GREY_STEP
from opsin.registry import METRICS

EPS = 1e-8
AFFINE = np.diag((2.0, 2.0, 2.0, 1.0))  # the authors' files say so; slices have no spacing of their own


@METRICS.register_module()
class SubjectDiceMetric(BaseMetric):
    """Dice as multi-scale guided attention is evaluated.

    `seg/dice_2d_<class>` sums intersections and areas over all slices; `seg/dice_3d_<class>` is the mean, and
    `seg/dice_3d_std_<class>` the standard deviation over subjects of the same over a subject's slices, which
    is Dice of its volume. `seg/dice` is the mean of the first over all classes but the background.

    Args:
        classes: names, the background first.
        out_dir: where to write slices (`slices/*.png`, grey 0, 63, 126, …), volumes (`volumes/*.nii.gz`,
            slice n in plane n - 1) and every subject's Dice (`subjects.json`); None: nowhere.
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "seg"

    def __init__(self, classes: Sequence[str], out_dir: str | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.classes = tuple(classes)
        self.out_dir = Path(out_dir) if out_dir else None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts, of each slice and class, the intersection and the two areas."""
        for sample in data_samples:
            found, true = sample["pred_label"].numpy(), sample["gt_label"].numpy()
            counts = [
                [int((a & b).sum()), int(a.sum()) + int(b.sum())]
                for a, b in ((found == i, true == i) for i in range(len(self.classes)))
            ]
            kept = found.astype(np.uint8) if self.out_dir else None
            self.results.append((str(sample["case"]), int(sample.get("slice", 1)), counts, kept))

    def compute_metrics(self, results: list[tuple[str, int, list[list[int]], Any]]) -> dict[str, float]:
        """The numbers; writes the files if asked to."""
        counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros((len(self.classes), 2), np.int64))
        for case, _, slice_counts, _ in results:
            counts[case] += np.array(slice_counts)
        flat = _dice(np.sum(list(counts.values()), axis=0))
        by_case = {case: _dice(c) for case, c in counts.items()}
        solid = np.stack(list(by_case.values()))
        if self.out_dir:
            self._write(results, by_case)
        numbers = {"dice": float(flat[1:].mean()), "dice_3d": float(solid[:, 1:].mean())}
        for index, name in enumerate(self.classes):
            numbers[f"dice_2d_{name}"] = float(flat[index])
            numbers[f"dice_3d_{name}"] = float(solid[:, index].mean())
            numbers[f"dice_3d_std_{name}"] = float(solid[:, index].std())
        return numbers

    def _write(self, results: Sequence[Any], by_case: dict[str, NDArray[np.float64]]) -> None:
        assert self.out_dir is not None
        by_subject: dict[str, dict[int, NDArray[np.uint8]]] = defaultdict(dict)
        for case, number, _, found in results:
            write_image(self.out_dir / "slices" / f"{case}slice_{number}.png", found * np.uint8(GREY_STEP))
            by_subject[case][number] = found
        for case, slices in by_subject.items():
            volume = stacked(slices, case)
            image = nib.Nifti1Image(volume, AFFINE)
            write_atomically(self.out_dir / "volumes" / f"{case}.nii", image.to_bytes())
        rows = {case: dict(zip(self.classes, dice.tolist(), strict=True)) for case, dice in by_case.items()}
        write_json(self.out_dir / "subjects.json", rows)


def stacked(slices: dict[int, NDArray[np.uint8]], case: str) -> NDArray[np.uint8]:
    """Slices by number, from 1, as a volume (H, W, greatest number): slice n is plane n - 1, missing ones 0.

    Raises:
        UserError: if the slices of the subject differ in size, or are not counted from 1.
    """
    shapes = {s.shape for s in slices.values()}
    if len(shapes) != 1 or min(slices) < 1:
        raise UserError(f"the slices of subject {case} differ in size, or are not counted from 1")
    volume = np.zeros((*shapes.pop(), max(slices)), np.uint8)
    for number, found in slices.items():
        volume[..., number - 1] = found
    return volume


def _dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(classes, 2), intersection and sum of areas, to Dice; 1 where a class is nowhere."""
    return np.asarray((2 * counts[:, 0] + EPS) / (counts[:, 1] + EPS), np.float64)
