"""Forecasting of time series: tables in CSV files, windows of them, the model around a forecaster, errors.

Configs name this package in `custom_imports`; importing it registers its classes. `python -m
opsin.core.forecasting` trains, tests and predicts.
"""

from opsin.core.forecasting.forecaster import Forecaster
from opsin.core.forecasting.metric import ForecastErrors
from opsin.core.forecasting.table import Table, read_table, write_table
from opsin.core.forecasting.windows import ForecastWindows

__all__ = ["ForecastErrors", "ForecastWindows", "Forecaster", "Table", "read_table", "write_table"]
