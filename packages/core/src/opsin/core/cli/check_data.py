"""`opsin check-data CONFIG`: what is missing or broken in the data that a config names."""

from __future__ import annotations

from dataclasses import asdict

import typer

from opsin.core.cli.run import ConfigName, Data, Json, Overrides
from opsin.core.cli.show import show_json, show_line, show_table


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("check-data")(check_data)


def check_data(
    config: ConfigName, overrides: Overrides = None, data: Data = None, as_json: Json = False
) -> None:
    """Reads all data of a config without training; exits with 1 if something is missing or broken."""
    from opsin.core.data.checker import check_data as check
    from opsin.core.engine.config import load_config

    checks = check(load_config(config, overrides=overrides or (), data=data))
    if as_json:
        show_json([asdict(found) for found in checks])
    else:
        rows = [(found.part, found.dataset, found.samples, len(found.faults)) for found in checks]
        show_table(("part", "data set", "samples", "faults"), rows)
        for found in checks:
            for fault in found.faults:
                show_line(f"{found.part}: {fault}")
    if any(found.faults for found in checks):
        raise typer.Exit(1)
