"""`opsin check-pidray DIR`: what is missing or broken in a folder in PIDray's layout."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("check-pidray")(check_pidray)


def check_pidray(
    directory: Annotated[Path, typer.Argument(help="Folder with train, easy, hard, hidden, annotations.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks a folder in PIDray's layout; exits with 1 if something is missing or broken."""
    from opsin.core.cli.show import show_json, show_line, show_table
    from opsin.detection.xray.datasets.checker import check_folder

    checks = check_folder(directory)
    if as_json:
        show_json([asdict(check) for check in checks])
    else:
        show_table(
            ("part", "pictures", "published", "objects", "faults"),
            [(c.part, c.pictures, c.published, c.objects, sum(map(len, c.faults.values()))) for c in checks],
        )
        for check in checks:
            for line in check.lines():
                show_line(f"{check.part}: {line}")
    if any(check.faults for check in checks):
        raise typer.Exit(1)
