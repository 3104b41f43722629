import json
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch

from opsin.core.errors import UserError
from opsin.core.forecasting import ForecastErrors, ForecastWindows, Table, read_table, write_table
from opsin.core.forecasting.__main__ import load_config, main
from opsin.core.forecasting.samples import COLUMNS, write
from opsin.core.forecasting.table import calendar


def daily(rows: int, columns=("a", "b")) -> Table:
    dates = tuple(datetime(2020, 1, 1) + timedelta(days=day) for day in range(rows))
    return Table(dates, columns, np.arange(rows * len(columns), dtype=float).reshape(rows, -1))


def table_file(tmp_path, rows: int):
    write_table(daily(rows), tmp_path / "table.csv")
    return tmp_path / "table.csv"


def test_tables_are_written_as_they_are_read(tmp_path):
    table = read_table(table_file(tmp_path, 5))
    assert table.columns == ("a", "b") and table.dates == daily(5).dates
    assert np.array_equal(table.values, daily(5).values) and table.step == timedelta(days=1)
    assert read_table(tmp_path / "table.csv", ("b",)).values[:, 0].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,a\n2020-01-01,1\n2020-01-02,2\n", "no column 'date'.*day, a"),
        ("date,a\n2020-01-01,1\n2020-01-02,\n", "line 3: not a date and numbers"),
        ("date,a\n2020-01-01,1\n2020-01-02,nan\n", "line 3: a value is missing"),
        ("date,a\n2020-01-01,1\n02/01/2020,2\n", "line 3: not a date"),
        ("date,a\n2020-01-01,1\n2020-01-02\n", "line 3: not a date"),
        ("date,a\n2020-01-02,1\n2020-01-01,2\n", "line 3.*does not come after"),
        ("date,a\n2020-01-02,1\n", "1 rows of 1 variates"),
        ("", "not a CSV table"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "table.csv")


def test_a_missing_table_or_column_is_named(tmp_path):
    with pytest.raises(UserError, match="no table at"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"unknown column.*'c'"):
        read_table(table_file(tmp_path, 3), ("c",))


def windows(path, split: str, **changes) -> ForecastWindows:
    return ForecastWindows(path, split=split, **{"lookback": 8, "horizon": 3, **changes})


def forecast_dates(dataset: ForecastWindows) -> list[datetime]:
    return list(dataset.dates[dataset.lookback :])


def test_splits_forecast_disjoint_steps_in_the_order_of_time(tmp_path):
    path = table_file(tmp_path, 100)
    parts = [windows(path, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [70 - 10, 10 - 2, 20 - 2]
    train, val, test = map(forecast_dates, parts)
    assert train == list(daily(100).dates[8:70])
    assert val == list(daily(100).dates[70:80]) and test == list(daily(100).dates[80:])


def test_months_of_30_days_are_counted_by_the_tables_own_step(tmp_path):
    path = table_file(tmp_path, 620)
    parts = [windows(path, split, months=True, parts=(12, 4, 4)) for split in ("train", "val", "test")]
    assert [len(forecast_dates(part)) for part in parts] == [360 - 8, 120, 120]
    assert forecast_dates(parts[2])[-1] == daily(620).dates[599]  # the rest of the file is unused
    with pytest.raises(UserError, match="has 620 rows, and 30 months take 900"):
        windows(path, "train", months=True, parts=(20, 5, 5))


def test_values_are_standardised_by_the_training_part(tmp_path):
    path = table_file(tmp_path, 100)
    train, test = windows(path, "train"), windows(path, "test")
    assert np.allclose(train.values.mean(0), 0, atol=1e-5) and np.allclose(train.values.std(0), 1, atol=1e-5)
    sample = test[0]
    assert sample["inputs"].shape == (8, 2) and sample["targets"].shape == (3, 2)
    mean, deviation = (np.array(test.metainfo[name]) for name in ("mean", "deviation"))
    assert np.allclose(sample["targets"] * deviation + mean, daily(100).values[80:83], atol=1e-3)


def test_calendar_of_the_steps_to_forecast(tmp_path):
    sample = windows(table_file(tmp_path, 100), "train", calendar=True)[0]
    assert torch.equal(sample["future"], torch.from_numpy(calendar(daily(100).dates[8:11])))
    friday = calendar((datetime(2021, 12, 31, 23),))[0]  # the last hour and day of month and year
    assert friday == pytest.approx([0.5, 4 / 6 - 0.5, 0.5, 364 / 365 - 0.5])


def test_impossible_windows_are_refused(tmp_path):
    path = table_file(tmp_path, 30)
    with pytest.raises(UserError, match=r"val part of .* has 11 rows, and a window takes 8 \+ 9"):
        windows(path, "val", horizon=9)
    with pytest.raises(UserError, match=r"unknown split 'vall'.*val"):
        windows(path, "vall")
    with pytest.raises(UserError, match="three positive numbers"):
        windows(path, "train", parts=(8, 2))


def test_errors_are_means_over_windows_steps_and_variates():
    metric = ForecastErrors()
    target = torch.zeros(2, 2)
    metric.process(None, [{"forecast": target + 1, "target": target, "last": torch.tensor([2.0, 0.0])}])
    metric.process(None, [{"forecast": target - 3, "target": target, "last": torch.tensor([0.0, 0.0])}])
    want = {"forecast/mae": 2, "forecast/mse": 5, "forecast/repeat_mae": 0.5, "forecast/repeat_mse": 1}
    assert metric.evaluate(2) == want


def test_samples_follow_their_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, seed, rows=50)
    a, b, c = ((tmp_path / name / "series.csv").read_bytes() for name in "abc")
    assert a == b != c
    assert read_table(tmp_path / "a" / "series.csv").columns == COLUMNS


def test_trained_forecaster_beats_the_last_value_and_goes_on_after_the_table(tmp_path, capsys):
    write(tmp_path, rows=600)
    config, table = "tsm2_samples", str(tmp_path / "series.csv")
    data = ["--data", table]
    changes = ["train_cfg.max_epochs=3", "model.network.future_covariates=4"]
    changes += [f"{split}_dataloader.dataset.calendar=True" for split in ("train", "val", "test")]
    run(["train", config, *changes, *data, "--work-dir", str(tmp_path / "work")])
    losses = [
        row["loss"]
        for row in map(json.loads, next((tmp_path / "work").glob("*/vis_data/scalars.json")).open())
        if "loss" in row
    ]
    assert losses[-1] < 0.5 * losses[0]
    capsys.readouterr()
    run(["test", config, str(tmp_path / "work"), *changes, *data])
    errors = json.loads(capsys.readouterr().out)
    assert errors["forecast/mse"] < 0.5 * errors["forecast/repeat_mse"]
    assert errors["forecast/mae"] < 0.7 * errors["forecast/repeat_mae"]

    head = read_table(table)
    seen = Table(head.dates[:-24], head.columns, head.values[:-24])
    write_table(seen, tmp_path / "seen.csv")
    arguments = [config, str(tmp_path / "work"), str(tmp_path / "seen.csv"), *changes]
    run(["predict", *arguments, "--out", str(tmp_path / "next.csv")])
    forecast = read_table(tmp_path / "next.csv")
    assert forecast.dates == head.dates[-24:] and forecast.columns == COLUMNS
    error = np.abs(forecast.values - head.values[-24:]).mean(0)
    repeated = np.abs(seen.values[-1] - head.values[-24:]).mean(0)
    assert (error / repeated).mean() < 0.8


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0


def test_config_of_etth1_is_the_published_protocol():
    cfg = load_config("tsm2_etth1")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.months and tuple(loader.dataset.parts) == (12, 4, 4)
        assert loader.dataset.horizon == cfg.model.network.horizon


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "tsm2_sample"], "unknown forecasting config 'tsm2_sample'; did you mean tsm2_samples"),
        (["train", "tsm2_samples", "--data", "none.csv"], "no table at none.csv"),
        (["test", "tsm2_samples", "none.pth"], "no checkpoint at none.pth"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
