"""Looks for what tells who a patient is in files that were made from DICOM files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from opsin.core.errors import UserError
from opsin.medical.volumes import patient_identity

SHORTEST_IN_BYTES = 5  # shorter texts stand in compressed pixels by chance
TEXT_SUFFIXES = (".csv", ".json", ".log", ".py", ".txt", ".yaml", ".md", ".html", ".svg")


@dataclass(frozen=True)
class Leak:
    """A file that tells who a patient is; `where` is `name` or `content`. What it tells is not repeated."""

    path: Path
    where: str


def identities(inputs: Iterable[Path]) -> frozenset[str]:
    """What the DICOM files at `inputs` (files, and folders of them) say of who their patients are.

    Raises:
        UserError: if there is none.
    """
    from pydicom.misc import is_dicom

    files = [p for given in inputs for p in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    found = [p for p in files if p.is_file() and p.stat().st_size > 132 and is_dicom(p)]
    if not found:
        raise UserError("no DICOM file in what was given", "name the files that the results were made from")
    return frozenset[str]().union(*map(patient_identity, found))


def find_leaks(folder: Path, identity: Iterable[str]) -> list[Leak]:
    """Files in `folder` whose name or content has one of the texts in `identity`, in any case of letters.

    Gzipped content is searched unpacked. Texts of fewer than five letters are searched in names and text
    only.

    Raises:
        UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    secrets = [text.lower() for text in identity]
    leaks = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix().lower()
        if any(secret in name for secret in secrets):
            leaks.append(Leak(path, "name"))
        if path.is_file() and _content_tells(path, secrets):
            leaks.append(Leak(path, "content"))
    return leaks


def _content_tells(path: Path, secrets: list[str]) -> bool:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError, zlib.error):  # a damaged file is searched as it is
            content += gzip.decompress(content)
    least = 0 if path.suffix in TEXT_SUFFIXES else SHORTEST_IN_BYTES
    lower = content.lower()
    return any(secret.encode() in lower for secret in secrets if len(secret) >= least)
