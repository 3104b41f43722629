"""Classes as text: names with synonyms, files of them, and the prompts that CLIP reads.

A file has one class a line, synonyms after commas (`tv,monitor`); `7:tv,monitor` as in FC-CLIP's
files is read too, and its `invalid_class_id` left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from opsin.core.errors import UserError

Names = tuple[str, ...]  # a class: its name, then synonyms

# ViLD's (arXiv 2104.13921) short list
PROMPTS = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)


def as_vocabulary(classes: Iterable[str | Sequence[str]] | str) -> list[Names]:
    """Classes as a config or a command line gives them.

    Args:
        classes: a name a class, or a sequence of its synonyms; one string is the path of a file.

    Raises:
        UserError: if there is no class, a name is empty, or two classes have the same first name.
    """
    if isinstance(classes, str):
        return read_vocabulary(Path(classes))
    return _checked(
        [(names,) if isinstance(names, str) else tuple(names) for names in classes], "the classes"
    )


def read_vocabulary(path: Path) -> list[Names]:
    """The classes in a file.

    Raises:
        UserError: if the file is missing, names no class, or names one twice.
    """
    if not path.is_file():
        raise UserError(f"no file of class names at {path}", "give names as [cat,(tv,monitor)] or a file")
    classes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        number, colon, rest = line.partition(":")
        text = rest if colon and number.strip().isdigit() else line
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if names and names[0] != "invalid_class_id":
            classes.append(names)
    return _checked(classes, str(path))


def _checked(classes: list[Names], where: str) -> list[Names]:
    if not classes:
        raise UserError(f"{where} hold no class name", "give names as [cat,(tv,monitor)] or a file")
    for names in classes:
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise UserError(f"{where} hold the empty name {names!r}")
    first = [names[0] for names in classes]
    twice = sorted({name for name in first if first.count(name) > 1})
    if twice:
        raise UserError(f"{where} name {', '.join(twice)} twice")
    return classes
