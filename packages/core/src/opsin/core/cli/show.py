"""How the command line prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show_json(content: Any) -> None:
    """Prints one JSON document on standard output."""
    print(json.dumps(content, indent=1))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Prints a table; a number is aligned to the right."""
    table = Table(title=title or None, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table)


def show_line(text: str) -> None:
    """Prints one line without wrapping or markup."""
    Console(soft_wrap=True, highlight=False, markup=False).print(text)
