"""`opsin medical check` and `opsin medical privacy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    medical = typer.Typer(help="Looks over medical data and results.", no_args_is_help=True)
    medical.command()(check)
    medical.command()(privacy)
    app.add_typer(medical, name="medical")


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")],
    classes: Annotated[int, typer.Option(help="Classes that labels may have, with the background.")] = 256,
) -> int:
    """Says which layouts a data folder has and what is wrong with its cases; exit code 1 if something is."""
    from opsin.core.cli.show import show_line, show_table
    from opsin.medical.checks import check_folder

    reports = check_folder(folder, classes)
    rows = [
        (str(r.folder), r.layout, str(r.cases), str(len(r.problems)), str(len(r.remarks))) for r in reports
    ]
    show_table(("folder", "layout", "readable", "problems", "remarks"), rows)
    for report in reports:
        for line in [*report.problems, *report.remarks]:
            show_line(line)
    return 1 if any(report.problems for report in reports) else 0


def privacy(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of results.")],
    dicom: Annotated[list[Path], typer.Argument(metavar="DICOM…", help="What they were made from.")],
) -> int:
    """Looks for patients' names, numbers and birth dates in results; exit code 1 if one is there."""
    from opsin.core.cli.show import show_line, show_table
    from opsin.medical.privacy import find_leaks, identities
    from opsin.medical.volumes import conceal

    identity = identities(dicom)
    leaks = find_leaks(results, identity)
    if leaks:
        show_table(
            ("what tells", "file"), [(leak.where, conceal(str(leak.path), identity)) for leak in leaks]
        )
        return 1
    show_line(f"nothing in {results} tells who the patients are")
    return 0
