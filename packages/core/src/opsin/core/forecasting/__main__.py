"""`python -m opsin.core.forecasting samples | train | test | predict`: forecasters on CSV tables.

A config is a path or the name of one in this package's `configs/`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from mmengine.config import Config

from opsin.core.engine.checkpoint import LAST
from opsin.core.engine.config import apply_overrides
from opsin.core.engine.runner import test as run_test
from opsin.core.engine.runner import train as run_training
from opsin.core.errors import as_user_error, unknown
from opsin.core.forecasting.predict import predict as forecast
from opsin.core.forecasting.samples import FILE, write
from opsin.core.forecasting.table import write_table

CONFIGS = Path(__file__).parent / "configs"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Forecast time series in tables."
)
ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="A path, or tsm2_samples, tsm2_etth1, …")]
Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a work dir.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="CSV file with a date column; replaces the config's.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Changes to the config.")]


def load_config(name: str, data: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a config by path or name, with another table and changes.

    Raises:
        UserError: if there is no such config, or a change does not fit it.
    """
    path = Path(name)
    if not path.is_file():
        path = CONFIGS / f"{name}.py"
    if not path.is_file():
        raise unknown("forecasting config", name, [p.stem for p in CONFIGS.glob("*.py")])
    cfg = Config.fromfile(path)
    if data is not None:
        for loader in LOADERS:
            cfg[loader].dataset.file = str(data)
    apply_overrides(cfg, overrides)
    return cfg


def _checkpoint(path: Path) -> Path:
    """The checkpoint at `path`, or the newest of the work dir there."""
    if path.is_dir() and (path / LAST).is_file():
        return Path((path / LAST).read_text().strip())
    return path


@app.command()
def samples(directory: Annotated[Path, typer.Argument(metavar="DIR")], seed: int = 0) -> None:
    """Writes a small table."""
    write(directory, seed)
    typer.echo(directory / FILE)


@app.command()
def train(
    config: ConfigName,
    overrides: Overrides = None,
    data: Data = None,
    work_dir: Path | None = None,
    resume: bool = False,
) -> None:
    """Trains a forecaster; evaluates it as the config says."""
    cfg = load_config(config, data, overrides or ())
    runner = run_training(cfg, work_dir or Path("work_dirs") / Path(config).stem, resume=resume)
    typer.echo(f"trained {runner.iter} iterations; checkpoints and logs in {runner.work_dir}")


@app.command()
def test(config: ConfigName, checkpoint: Checkpoint, overrides: Overrides = None, data: Data = None) -> None:
    """Prints a checkpoint's errors on the test part as JSON."""
    typer.echo(json.dumps(run_test(load_config(config, data, overrides or ()), _checkpoint(checkpoint))))


@app.command()
def predict(
    config: ConfigName,
    checkpoint: Checkpoint,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV file with a date column.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    overrides: Overrides = None,
) -> None:
    """Writes what comes after a table."""
    cfg = load_config(config, overrides=overrides or ())
    write_table(forecast(cfg, _checkpoint(checkpoint), table), out)
    typer.echo(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a person's mistake ends in one line and exit code 2."""
    try:
        app(arguments, standalone_mode=True)
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print(f"forecasting: {mistake}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
