"""Volumes: overlap and surface distances of each class in each case, by MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from mmengine.evaluator import BaseMetric
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import METRICS


@METRICS.register_module()
class OverlapSurfaceMetric(BaseMetric):
    """`seg/dice`, `seg/hd95`, `seg/asd`: means over classes but the background, each a mean over cases.

    Dice, Hausdorff distance (95th percentile) and average symmetric surface distance are MONAI's, in
    millimetres if the cases have a spacing. `seg/dice_<class>` and `seg/hd95_<class>` stand beside them.

    Args:
        classes: names, the background first.
        protocol: `monai`: a class that is in neither labels nor prediction does not count, one that is in one
            of them has Dice 0 and no distance. `synapse`: as TransUNet's evaluation counts, distances in
            voxels: found but absent is Dice 1 and distance 0, not found is 0 and 0; the percentile is of both
            directions' distances together.
        base: arguments of mmengine's `BaseMetric`.

    Raises:
        UserError: for another protocol.
    """

    default_prefix = "seg"

    def __init__(
        self, classes: Sequence[str], protocol: Literal["monai", "synapse"] = "monai", **base: Any
    ) -> None:
        super().__init__(**base)
        if protocol not in ("monai", "synapse"):
            raise UserError(f"protocol {protocol!r}", "use 'monai' or 'synapse'")
        self.classes = tuple(classes)
        self.measure = _measure_monai if protocol == "monai" else _measure_synapse

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures each case: a row a class of Dice, hd95 and asd."""
        for sample in data_samples:
            found, true = sample["pred_label"].cpu(), sample["gt_label"].cpu()
            spacing = tuple(sample.get("spacing", (1.0,) * true.ndim))
            rows = [
                self.measure(found == index, true == index, spacing) for index in range(1, len(self.classes))
            ]
            self.results.append(rows)

    def compute_metrics(self, results: list[list[list[float]]]) -> dict[str, float]:
        """The means; a class that no case has, and a distance that none has, is left out."""
        table = np.array(results, float)  # case, class, measure
        table[~np.isfinite(table)] = np.nan
        per_class = np.array([[_mean(table[:, i, m]) for m in range(3)] for i in range(table.shape[1])])
        numbers = {name: _mean(per_class[:, m]) for m, name in enumerate(("dice", "hd95", "asd"))}
        for index, name in enumerate(self.classes[1:]):
            numbers |= {f"dice_{name}": per_class[index, 0], f"hd95_{name}": per_class[index, 1]}
        return {name: float(value) for name, value in numbers.items() if not np.isnan(value)}


def _measure_monai(found: Tensor, true: Tensor, spacing: Sequence[float]) -> list[float]:
    if not true.any() and not found.any():
        return [np.nan, np.nan, np.nan]
    if not true.any() or not found.any():
        return [0.0, np.nan, np.nan]
    a, b = (mask[None, None].float() for mask in (found, true))
    options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    return [
        compute_dice(a, b).item(),
        compute_hausdorff_distance(a, b, percentile=95, **options).item(),
        compute_average_surface_distance(a, b, symmetric=True, **options).item(),
    ]


def _measure_synapse(found: Tensor, true: Tensor, spacing: Sequence[float]) -> list[float]:
    if not found.any():
        return [0.0, 0.0, np.nan]
    if not true.any():
        return [1.0, 0.0, np.nan]
    dice = compute_dice(found[None, None].float(), true[None, None].float()).item()
    return [dice, pooled_hausdorff95(found.numpy(), true.numpy()), np.nan]


def pooled_hausdorff95(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """The 95th percentile of the distances of both surfaces to the other, in voxels; neither mask is empty.

    A surface is the voxels that have a neighbour by a face outside; the border of the array counts as
    outside.
    """
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (found, true)]
    distances = [ndimage.distance_transform_edt(~other)[own] for own, other in (surfaces, surfaces[::-1])]
    return float(np.percentile(np.concatenate(distances), 95))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.mean(values[~np.isnan(values)])) if (~np.isnan(values)).any() else float("nan")
