"""`opsin benchmark` and `export`: speed and memory; models for other runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.core.cli.complete import model_names
from opsin.core.cli.show import show_json, show_line, show_table
from opsin.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(benchmark)
    app.command()(export)


def benchmark(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", autocompletion=model_names)],
    size: Annotated[int, typer.Option(help="Side of the square input, in pixels.")] = 224,
    batch: Annotated[int, typer.Option(help="Images a batch.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    runs: Annotated[int, typer.Option(help="Timed runs; the median counts.")] = 5,
    train: Annotated[bool, typer.Option("--train", help="Time forward and backward.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Under bf16 autocast.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Times models and measures their peak memory, each in a process of its own."""
    from opsin.core.models import get_model

    for name in models:
        get_model(name)
    rows = [_in_own_process(name, size, batch, threads, runs, train, bf16) for name in models]
    if as_json:
        show_json(rows)
        return
    first = rows[0]["milliseconds"]
    columns = ("model", "ms/batch", "images/s", "peak MB", f"time / {models[0]}")
    show_table(
        columns,
        [
            (
                r["model"],
                f"{r['milliseconds']:.1f}",
                f"{1000 * batch / r['milliseconds']:.1f}",
                f"{r['peak_megabytes']:.0f}",
                f"{r['milliseconds'] / first:.2f}",
            )
            for r in rows
        ],
    )


def _in_own_process(name: str, *arguments: Any) -> dict[str, Any]:
    code = f"from opsin.core.engine.measure import measure; measure({name!r}, *{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise UserError(f"{name} could not be measured: {last}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=model_names)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.pt2 (torch.export) or OUT.onnx.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file of `opsin convert`, or the authors' own.")
    ] = None,
    height: Annotated[int, typer.Option(help="Input height, pixels.")] = 224,
    width: Annotated[int, typer.Option(help="Input width, pixels.")] = 224,
) -> None:
    """Writes a model for other runtimes."""
    from opsin.core.engine.export import export_model
    from opsin.core.models import create_model
    from opsin.core.published import load_published

    network = create_model(model)
    if checkpoint is not None:
        load_published(network, checkpoint)
    export_model(network.eval(), out, (1, 3, height, width))
    show_line(f"{model} in {out}, {out.stat().st_size / 1e6:.1f} MB, input 1×3×{height}×{width}")
