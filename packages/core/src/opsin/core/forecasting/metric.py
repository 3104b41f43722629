"""Errors of forecasts, beside those of repeating the last value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from opsin.registry import METRICS


@METRICS.register_module()
class ForecastErrors(BaseMetric):
    """`forecast/mae` and `forecast/mse` over all windows, steps and variates, of standardised values.

    `forecast/repeat_mae` and `forecast/repeat_mse` are those of the forecast that repeats the window's last
    value, which a model has to beat.
    """

    default_prefix = "forecast"

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Tensor]]) -> None:
        """Keeps each window's mean errors (`forecast` and `target` (H, V), `last` (V,))."""
        for sample in data_samples:
            row = []
            for forecast in (sample["forecast"], sample["last"]):
                error = (forecast - sample["target"]).double()
                row += [error.abs().mean().item(), error.square().mean().item()]
            self.results.append(row)

    def compute_metrics(self, results: list[list[float]]) -> dict[str, float]:
        """The means over all windows, which are of one size."""
        names = ("mae", "mse", "repeat_mae", "repeat_mse")
        return dict(zip(names, np.array(results).mean(0).tolist(), strict=True))
