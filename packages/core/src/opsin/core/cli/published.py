"""`opsin convert` and `parity`: the authors' files and numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from opsin.core.cli.complete import model_names
from opsin.core.cli.show import show_line, show_table
from opsin.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(convert)
    app.command()(parity)


def convert(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", autocompletion=model_names, help="A name that `opsin models` lists."),
    ],
    published: Annotated[Path, typer.Argument(metavar="PUBLISHED", help="The authors' checkpoint file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors")],
    key: Annotated[str | None, typer.Option(help="Which of the file's entries to take.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Argument of the model, as num_classes=10."),
    ] = None,
) -> None:
    """Reads the authors' checkpoint file into MODEL and writes its tensors."""
    from mmengine.config import DictAction
    from safetensors.torch import save

    from opsin.core.files import write_atomically
    from opsin.core.models import create_model
    from opsin.core.published import load_published

    if out.suffix != ".safetensors":
        raise UserError(f"{out} should end in .safetensors")
    pairs = [change.partition("=") for change in changes or ()]
    network = create_model(model, **{name: DictAction._parse_iterable(value) for name, _, value in pairs})
    load_published(network, published, key)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(out, save(tensors, {"model": model, "source": published.name, "format": "pt"}))
    show_line(f"{len(tensors)} tensors of {model} in {out}")


def parity(
    cases: Annotated[list[Path], typer.Argument(metavar="CASE.json…")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> int:
    """Compares with the published implementation's numbers; exit code 1 if any case is out of tolerance."""
    from opsin.core.parity import run_case

    results = [run_case(case) for case in cases]
    if as_json:
        print(json.dumps([result.as_json() for result in results], indent=1, allow_nan=False))
    else:
        rows = [
            (
                r.system,
                r.case,
                "" if r.worst is None else f"{r.worst:.2e}",
                r.tolerance or "",
                "ok" if r.ok else r.error or "OUT OF TOLERANCE",
            )
            for r in results
        ]
        show_table(("system", "case", "worst", "tolerance", "result"), rows)
    return 0 if all(result.ok for result in results) else 1
