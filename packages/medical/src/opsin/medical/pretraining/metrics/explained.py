"""How much of what was hidden a masked autoencoder reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from opsin.registry import METRICS


@METRICS.register_module()
class ExplainedVariance(BaseMetric):
    """`pretraining/pictures` and `volumes`: 1 - error / variance of what is hidden; `explained`: their mean.

    0 is what a constant gives that knows the mean of everything that is hidden in a sample, 1 is perfect.
    """

    default_prefix = "pretraining"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps kind, squared error and squared deviation from the mean of each sample's hidden numbers."""
        for sample in data_samples:
            hidden = sample["mask"].bool()
            wanted, found = sample["target"][hidden].double(), sample["prediction"][hidden].double()
            error = float((wanted - found).square().sum())
            spread = float((wanted - wanted.mean()).square().sum())
            self.results.append((bool(sample["is_volume"]), error, spread))

    def compute_metrics(self, results: list[tuple[bool, float, float]]) -> dict[str, float]:
        """The shares of either kind that is there, and their mean."""
        shares = {}
        for volume, name in ((False, "pictures"), (True, "volumes")):
            rows = np.array([row[1:] for row in results if row[0] == volume])
            if len(rows):
                shares[name] = float(1 - rows[:, 0].sum() / max(rows[:, 1].sum(), 1e-12))
        return {**shares, "explained": float(np.mean(list(shares.values())))}
