"""Writes the parts of the documentation that follow from the code: the systems' table and the command line.

`--check` writes nothing and exits with 1 if a page is not up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer.main

from opsin.core.cli import app
from opsin.core.systems import System, systems
from opsin.core.task import tasks

DOCS = Path(__file__).parents[1] / "docs"


def systems_page() -> str:
    lines = [
        "# Systems",
        "",
        "Made from each package's `systems.toml` by `tools/docs_tables.py`.",
        "",
        "| system | title | paper | package | models | configs | parity cases |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_system_row(system) for system in sorted(systems().values(), key=lambda s: s.slug)]
    lines += ["", "## Configs by task", ""]
    for task in tasks().values():
        lines += [f"**{task.name}**: {task.summary}.", ""]
        lines += [f"- `{name}`" for name in task.configs()] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _system_row(system: System) -> str:
    def names(values: tuple[str, ...]) -> str:
        return " ".join(f"`{value}`" for value in values)

    paper = f"{system.paper} ({system.year})"
    cells = (f"[{system.slug}]({system.slug}.md)", system.title, paper, f"`{system.package}`")
    return f"| {' | '.join(cells)} | {names(system.models)} | {names(system.configs)} | {len(system.cases)} |"


def cli_page() -> str:
    lines = ["# Command line", "", "Made from the commands themselves by `tools/docs_tables.py`.", ""]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        arguments = " ".join(_usage(parameter) for parameter in command.params if parameter.name != "help")
        lines += [
            f"## `opsin {name}`",
            "",
            f"`opsin {name} {arguments}`".replace(" `", "`"),
            "",
            command.help or "",
            "",
        ]
        lines += [
            f"- `{'`, `'.join(p.opts)}`: {p.help}" for p in command.params if getattr(p, "help", None)
        ] + [""]
    lines += [
        "`--debug` with any command shows the traceback of a mistake. `opsin --install-completion` sets up",
        "the shell's completion.",
    ]
    return "\n".join(lines) + "\n"


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    word = parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {parameter.name.upper()}"
    return word if parameter.required else f"[{word}]"


PAGES = {"systems/index.md": systems_page, "cli.md": cli_page}


def stale_pages() -> list[str]:
    """The generated pages whose files differ from what the code says."""
    return [n for n, make in PAGES.items() if not (DOCS / n).is_file() or (DOCS / n).read_text() != make()]


def main() -> int:
    stale = stale_pages()
    if "--check" in sys.argv:
        if stale:
            print(f"not up to date: {', '.join(stale)}; run tools/docs_tables.py", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
