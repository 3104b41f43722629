"""Tables of a time series: CSV files with a `date` column and one column a variate (the layout of ETT)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError, unknown
from opsin.core.files import write_atomically

DATE = "date"


@dataclass(frozen=True)
class Table:
    """A multivariate series: L dates in ascending order, V named columns, values (L, V) in float64."""

    dates: tuple[datetime, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float64]

    @property
    def step(self) -> timedelta:
        """Time from the last row but one to the last."""
        return self.dates[-1] - self.dates[-2]


def read_table(path: str | Path, columns: tuple[str, ...] | None = None) -> Table:
    """Reads a CSV file.

    Args:
        path: the file; its first line names the columns, of which one is `date`, in ISO format.
        columns: the variates to take, in this order; all but `date` if None.

    Raises:
        UserError: if the file is missing or no such table, a column is not there, a cell is empty, no number
            or no date, or the dates do not ascend (the line is named).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no table at {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV table with a line of names") from error
    if DATE not in header:
        raise UserError(f"{path} has no column {DATE!r}", f"it has {', '.join(header[:8])}")
    taken = columns or tuple(name for name in header if name != DATE)
    for name in taken:
        if name not in header:
            raise unknown(f"column of {path}", name, header)
    if len(rows) < 2 or not taken:
        raise UserError(f"{path} holds {len(rows)} rows of {len(taken)} variates", "that is no series")
    places = [header.index(name) for name in taken]
    parsed = [_parse(row, header.index(DATE), places, f"{path}, line {n}") for n, row in enumerate(rows, 2)]
    dates = tuple(date for date, _ in parsed)
    for number, (before, after) in enumerate(pairwise(dates), 3):
        if after <= before:
            raise UserError(f"{path}, line {number}: {after} does not come after {before}", "sort the rows")
    return Table(dates, tuple(taken), np.array([values for _, values in parsed]))


def _parse(row: list[str], date: int, places: list[int], where: str) -> tuple[datetime, list[float]]:
    try:
        when = datetime.fromisoformat(row[date].strip())
        values = [float(row[place]) for place in places]
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{where}: not a date and numbers: {', '.join(row)[:80]}") from error
    if not np.isfinite(values).all():
        raise UserError(f"{where}: a value is missing: {', '.join(row)[:80]}", "fill or leave out such rows")
    return when, values


def write_table(table: Table, path: str | Path) -> None:
    """Writes a table as `read_table` reads it.

    Raises:
        UserError: if the place can't be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([DATE, *table.columns])
    for date, values in zip(table.dates, table.values, strict=True):
        writer.writerow([date.isoformat(" "), *(f"{value:.6g}" for value in values)])
    write_atomically(path, text.getvalue().encode())


def calendar(dates: tuple[datetime, ...]) -> NDArray[np.float32]:
    """What the calendar says of L dates, (L, 4): hour, weekday, day of month and of year, in -0.5 to 0.5."""
    rows = [
        (d.hour / 23, d.weekday() / 6, (d.day - 1) / 30, (d.timetuple().tm_yday - 1) / 365) for d in dates
    ]
    return np.array(rows, dtype=np.float32) - 0.5
