"""`opsin samples`, `train`, `test` and `predict`: the road from picture files to an evaluated model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opsin.core.cli.complete import config_names, task_names
from opsin.core.cli.show import show_json, show_line, show_table
from opsin.core.errors import UserError

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Changes to the config.")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder; replaces the config's data_root.")]
ConfigName = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", autocompletion=config_names, help="A path, a short name, or mmdet::… / mmseg::…"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(samples)
    app.command()(train)
    app.command()(test)
    app.command()(predict)


def samples(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", autocompletion=task_names, help="A task that `opsin doctor` lists."),
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
    seed: Annotated[int, typer.Option(help="The same seed writes the same files.")] = 0,
) -> None:
    """Writes a small sample data set in the task's standard on-disk format."""
    from opsin.core.engine.predictor import make_folder
    from opsin.core.task import get_task

    found = get_task(task)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not an empty folder", "name a new one; nothing was written")
    make_folder(directory)
    found.write_samples(directory, seed=seed)
    files = [path for path in directory.rglob("*") if path.is_file()]
    show_line(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB, in {directory}")


def train(
    config: ConfigName,
    overrides: Overrides = None,
    data: Data = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<config>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the work dir's last checkpoint.")
    ] = False,
    gpus: Annotated[
        int, typer.Option(help="GPUs that must be there (more than one: start with torchrun).")
    ] = 0,
) -> None:
    """Trains a model; evaluates it as the config says."""
    from opsin.core.engine.config import load_config
    from opsin.core.engine.runner import train as run_training
    from opsin.core.engine.workdir import require_gpus

    require_gpus(gpus)
    cfg = load_config(config, overrides=overrides or (), data=data)
    runner = run_training(cfg, _work_dir(work_dir, config), resume=resume)
    show_line(f"trained {runner.iter} iterations; checkpoints and logs in {runner.work_dir}")


def test(
    config: ConfigName,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a work dir for its newest.")
    ],
    overrides: Overrides = None,
    data: Data = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: test/ beside the checkpoint.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluates a checkpoint; prints the task's usual metrics and writes them to <work dir>/metrics.json."""
    from opsin.core.engine.config import load_config
    from opsin.core.engine.predictor import write_json
    from opsin.core.engine.runner import test as run_test

    cfg = load_config(config, overrides=overrides or (), data=data)
    checkpoint = newest_checkpoint(checkpoint)
    place = work_dir or checkpoint.parent / "test"
    metrics = run_test(cfg, checkpoint, work_dir=place)
    write_json(place / "metrics.json", metrics)
    if as_json:
        show_json(metrics)
    else:
        show_table(("metric", "value"), [(name, f"{value:.4f}") for name, value in metrics.items()])
        show_line(f"written to {place / 'metrics.json'}")


def predict(
    config: ConfigName,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a work dir for its newest.")
    ],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT…", help="Images, videos or folders.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions and pictures.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report an unreadable file and go on.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the config.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predicts on images, folders and videos: files in the task's usual format, and pictures."""
    from opsin.core.engine.config import load_config, task_of

    cfg = load_config(config, overrides=overrides or ())
    predictor = task_of(cfg).load_predictor()(
        cfg, newest_checkpoint(checkpoint), device=checked_device(device)
    )
    records = predictor.predict(inputs, out, on_error="skip" if skip_bad else "raise")
    if as_json:
        show_json(records)
    else:
        bad = sum("error" in record for record in records)
        show_line(f"{len(records) - bad} predictions in {out}" + (f", {bad} files skipped" if bad else ""))


def newest_checkpoint(path: Path) -> Path:
    """`path`, or the newest checkpoint of the run whose work dir (or file `last_checkpoint`) it is.

    Raises:
        UserError: if the work dir has no checkpoint.
    """
    from opsin.core.engine.checkpoint import LAST, last_checkpoint

    if path.is_dir():
        return last_checkpoint(path)
    return last_checkpoint(path.parent) if path.name == LAST else path


def checked_device(device: str) -> str:
    """`device`, if torch has it here.

    Raises:
        UserError: if it has not.
    """
    import torch

    kind, _, index = device.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if count == 0 or (index and int(index) >= count):
            raise UserError(f"no device {device!r}: this machine has {count} GPUs", "use --device cpu")
    elif kind not in {"cpu", "mps", "xpu"}:
        raise UserError(f"unknown device {device!r}", "use cpu or cuda")
    return device


def _work_dir(given: Path | None, config: str) -> Path:
    return given or Path("work_dirs") / Path(config.replace("::", "/")).stem
