"""A small table in the layout of ETT, made from a seed: daily and weekly rhythms, and noise that lasts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from opsin.core.forecasting.table import Table, write_table

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")  # ETT's: six loads and the oil temperature
FILE = "series.csv"


def write(directory: Path, seed: int = 0, *, rows: int = 2000) -> None:
    """Writes `series.csv`, hourly, into `directory`; the same seed writes the same file.

    Args:
        directory: made if it is missing.
        seed: of the series.
        rows: hours.
    """
    generator = np.random.default_rng(seed)
    hours = np.arange(rows)[:, None]
    shape = (1, len(COLUMNS))
    level, scale = generator.uniform(5, 20, shape), generator.uniform(1, 4, shape)
    day, week = generator.uniform(0, 24, shape), generator.uniform(0, 168, shape)
    rhythm = np.sin(2 * np.pi * (hours - day) / 24) + 0.5 * np.sin(2 * np.pi * (hours - week) / 168)
    weather = _lasting_noise(generator, rows, 1, 0.99) * generator.uniform(-1, 1, shape)
    noise = _lasting_noise(generator, rows, len(COLUMNS), 0.6)
    values = level + scale * (rhythm + 0.5 * weather + 0.2 * noise)
    dates = tuple(datetime(2016, 7, 1) + timedelta(hours=hour) for hour in range(rows))
    write_table(Table(dates, COLUMNS, values), Path(directory) / FILE)


def _lasting_noise(generator: np.random.Generator, rows: int, columns: int, keep: float) -> np.ndarray:
    """Noise of deviation 1 whose value at a step is `keep` times the one before, plus something new."""
    fresh = generator.standard_normal((rows, columns)) * np.sqrt(1 - keep**2)
    values = np.empty_like(fresh)
    values[0] = generator.standard_normal(columns)
    for row in range(1, rows):
        values[row] = keep * values[row - 1] + fresh[row]
    return values
