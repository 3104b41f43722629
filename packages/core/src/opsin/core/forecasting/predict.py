"""Forecasting what comes after a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from opsin.core.engine.checkpoint import load_exactly, read_run
from opsin.core.engine.config import build_model
from opsin.core.errors import UserError
from opsin.core.forecasting.table import Table, calendar, read_table


def predict(cfg: Config, checkpoint: str | Path, file: str | Path, *, device: str = "cpu") -> Table:
    """Forecasts the steps after the last row of a table, in the table's own units.

    Args:
        cfg: the config that the model was trained with.
        checkpoint: its checkpoint, which holds the training data's mean, deviation and columns.
        file: CSV file with at least as many rows as the model looks back.
        device: where to compute.

    Returns:
        As many rows as the model's horizon, their dates going on by the table's last step.

    Raises:
        UserError: if the checkpoint is of another model or was trained on no table, or the file is too short.
    """
    run = read_run(Path(checkpoint))
    meta = run["meta"].get("dataset_meta") or {}
    if "deviation" not in meta:
        raise UserError(f"{checkpoint} was not trained on tables", "give a checkpoint of a forecaster")
    model = build_model(cfg)
    load_exactly(model, run["state_dict"], source=str(checkpoint))
    table = read_table(file, tuple(meta["columns"]))
    network = model.network
    if len(table.dates) < network.lookback:
        raise UserError(f"{file} has {len(table.dates)} rows, and the model looks back {network.lookback}")
    mean, deviation = np.array(meta["mean"]), np.array(meta["deviation"])
    window = ((table.values[-network.lookback :] - mean) / deviation).astype(np.float32)
    dates = tuple(table.dates[-1] + table.step * step for step in range(1, network.horizon + 1))
    batch = {"inputs": torch.from_numpy(window)[None].to(device)}
    if meta["calendar"]:
        batch["future"] = torch.from_numpy(calendar(dates))[None].to(device)
    with torch.inference_mode():
        forecast = model.to(device).eval()(**batch)[0].double().cpu().numpy()
    return Table(dates, table.columns, forecast * deviation + mean)
