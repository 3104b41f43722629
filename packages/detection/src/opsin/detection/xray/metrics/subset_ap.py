"""COCO's average precision over a whole test set and over each of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsin.core.errors import UserError
from opsin.detection.metrics import CocoAP
from opsin.registry import METRICS


@METRICS.register_module()
class SubsetAP(CocoAP):
    """`CocoAP`, and the same for the pictures of each `subset`.

    Gives `coco/bbox_mAP`, … over all pictures, and `coco/easy/bbox_mAP`, … for each part. Samples carry
    `subset` (`PackDetection` keeps it if its `meta_keys` say so).

    Raises:
        UserError: when samples have no `subset`, or a part has no annotated object.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the ground truth, the predictions and the part of a batch."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        for result, sample in zip(self.results[before:], data_samples, strict=True):
            if "subset" not in sample:
                raise UserError(
                    "samples without `subset` in SubsetAP",
                    "add it to PackDetection's meta_keys, or use CocoAP",
                )
            result["subset"] = sample["subset"]

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The numbers over all pictures and over each part."""
        metrics = super().compute_metrics(results)
        for subset in dict.fromkeys(result["subset"] for result in results):
            of_subset = [result for result in results if result["subset"] == subset]
            if not any(result["instances"] for result in of_subset):
                raise UserError(f"the part {subset!r} has no annotated object", "AP is undefined without any")
            found = super().compute_metrics(of_subset)
            metrics |= {f"{subset}/{name}": value for name, value in found.items()}
        return metrics
