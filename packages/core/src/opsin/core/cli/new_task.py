"""`opsin new-task`: a task package of one's own, whose tests pass as written.

The package is the folder `task_template/` beside this file with the name put in; it predicts one number for a
picture, and every file of it is meant to be replaced.
"""

from __future__ import annotations

import keyword
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from opsin.core.cli.show import show_line
from opsin.core.errors import UserError

SUFFIX = ".tmpl"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("new-task")(new_task)


def new_task(
    name: Annotated[str, typer.Argument(metavar="NAME", help="In lower case, as plant_counting.")],
    directory: Annotated[Path, typer.Option("--in", help="Folder that gets the package.")] = Path(),
) -> None:
    """Writes a task package of your own."""
    package = write_package(name, directory)
    show_line(f"wrote {package}; next: pip install -e {package} && pytest {package}")


def write_package(name: str, directory: Path) -> Path:
    """Writes the package `opsin-NAME` into `directory` and returns its folder.

    Raises:
        UserError: if the name can't be a module's, is an installed task's, or the folder is there already.
    """
    from opsin.core.task import tasks

    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise UserError(f"{name!r} can't name a task", "use lower-case letters, digits and underscores")
    if module in tasks():
        raise UserError(f"a task {module!r} is installed already", "choose another name")
    target = directory / f"opsin-{module.replace('_', '-')}"
    if target.exists():
        raise UserError(f"{target} exists", "nothing was written")
    words = {
        "name": module,
        "NAME": module.upper(),
        "Name": "".join(word.capitalize() for word in module.split("_")),
        "distribution": target.name,
    }
    _fill(resources.files("opsin.core.cli") / "task_template", target, words)
    return target


def _fill(template: Traversable, target: Path, words: dict[str, str]) -> None:
    target.mkdir(parents=True)
    for entry in template.iterdir():
        if entry.name.startswith("__pycache__"):
            continue
        place = target / Template(entry.name.removesuffix(SUFFIX)).substitute(words)
        if entry.is_dir():
            _fill(entry, place, words)
        else:
            place.write_text(Template(entry.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
