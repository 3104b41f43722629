"""`opsin check-text DIR --layout NAME`: what is missing or broken in a folder of text data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

SHOWN = 20
"""Faults of a split that are printed; `--json` has all."""


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("check-text")(check_text)


def check_text(
    directory: Annotated[Path, typer.Argument(help="Folder in the layout, as published.")],
    layout: Annotated[
        str, typer.Option(help="icdar2015, totaltext, ctw1500, msratd500 or dast1500.")
    ] = "icdar2015",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks a folder of text data; exits with 1 if something is missing or broken."""
    from opsin.core.cli.show import show_json, show_line, show_table
    from opsin.ocr.text_detection.datasets.checker import check_folder

    checks = check_folder(directory, layout)
    if as_json:
        show_json([asdict(check) for check in checks])
    else:
        show_table(
            ("split", "pictures", "published", "texts", "don't care", "repaired", "faults"),
            [
                (c.split, c.pictures, c.published, c.texts, c.dont_care, len(c.repaired), len(c.faults))
                for c in checks
            ],
        )
        for check in checks:
            for line in check.faults[:SHOWN]:
                show_line(f"{check.split}: {line}")
            if len(check.faults) > SHOWN:
                show_line(f"{check.split}: and {len(check.faults) - SHOWN} more")
    if any(check.faults for check in checks):
        raise typer.Exit(1)
