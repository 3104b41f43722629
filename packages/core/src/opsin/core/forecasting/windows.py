"""Windows of a table for training and evaluating forecasters, split in time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from opsin.core.errors import UserError, unknown
from opsin.core.forecasting.table import calendar, read_table
from opsin.registry import DATASETS

SPLITS = ("train", "val", "test")
MONTH = timedelta(days=30)  # as the published protocol of ETT counts


@DATASETS.register_module()
class ForecastWindows(Dataset[dict[str, Tensor]]):
    """Every window of a split: `lookback` steps to see and `horizon` steps to forecast.

    The splits follow each other in time. The windows of validation and test forecast steps of their own split
    alone, and look back into the one before. Values are standardised by the training split's mean and
    deviation, as published errors are. A sample has `inputs` (T, V) and `targets` (H, V), and with `calendar`
    `future` (H, 4).

    Args:
        file: CSV file with a `date` column and one column a variate.
        split: 'train', 'val' or 'test'.
        lookback: steps T.
        horizon: steps H.
        parts: lengths of training, validation and test; see `months`.
        months: whether `parts` are months of 30 days (12, 4, 4 for ETT, the rest of the file unused); else
            they are shares of the whole.
        columns: variates to take; all if None.
        calendar: whether to give hour, weekday, day of month and day of year of the steps to forecast.

    Raises:
        UserError: if the file is no table, a split is unknown, or a part holds no window.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        split: Literal["train", "val", "test"],
        lookback: int,
        horizon: int,
        parts: Sequence[float] = (7, 1, 2),
        months: bool = False,
        columns: Sequence[str] | None = None,
        calendar: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise unknown("split", str(split), SPLITS)
        table = read_table(file, tuple(columns) if columns else None)
        self.lookback, self.horizon = lookback, horizon
        borders = _borders(len(table.dates), parts, MONTH / table.step if months else None, str(file))
        mean, deviation = _statistics(table.values[: borders[1]])
        self.metainfo: dict[str, Any] = {
            "columns": list(table.columns),
            "mean": mean.tolist(),
            "deviation": deviation.tolist(),
            "calendar": calendar,
        }
        index = SPLITS.index(split)
        rows = slice(max(0, borders[index] - (lookback if index else 0)), borders[index + 1])
        self.values = ((table.values - mean) / deviation).astype(np.float32)[rows]
        self.dates = table.dates[rows]
        self.calendar = calendar
        if len(self.values) < lookback + horizon:
            raise UserError(
                f"the {split} part of {file} has {len(self.values)} rows, and a window takes "
                f"{lookback} + {horizon}",
                "shorten lookback or horizon, or give a longer table",
            )

    def __len__(self) -> int:
        return len(self.values) - self.lookback - self.horizon + 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The window that begins at row `index` of the split."""
        now, end = index + self.lookback, index + self.lookback + self.horizon
        sample = {"inputs": self.values[index:now], "targets": self.values[now:end]}
        if self.calendar:
            sample["future"] = calendar(self.dates[now:end])
        return {name: from_numpy(values) for name, values in sample.items()}


def _borders(rows: int, parts: Sequence[float], rows_a_month: float | None, file: str) -> list[int]:
    """Where training, validation and test begin, and where test ends."""
    if len(parts) != len(SPLITS) or min(parts) <= 0:
        raise UserError(f"parts={tuple(parts)}", "give three positive numbers: training, validation, test")
    share = rows / sum(parts) if rows_a_month is None else rows_a_month
    borders = [round(share * sum(parts[:n])) for n in range(len(SPLITS) + 1)]
    if borders[-1] > rows:
        raise UserError(
            f"{file} has {rows} rows, and {sum(parts)} months take {borders[-1]}", "set months=False"
        )
    return borders


def _statistics(values: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of every column; a constant column's deviation counts as 1."""
    deviation = values.std(0)
    return values.mean(0), np.where(deviation > 0, deviation, 1.0)
