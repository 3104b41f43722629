"""Looks for what tells who a patient is in files that were made from DICOM files."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib

from opsin.core.cli.doctor import Finding
from opsin.core.errors import UserError
from opsin.medical.volumes import conceal, is_volume, patient_identity

SHORTEST_IN_BYTES = 5  # shorter texts stand in compressed pixels by chance
TEXT_SUFFIXES = (".csv", ".json", ".log", ".py", ".txt", ".yaml", ".md", ".html", ".svg")
PIECE = 1 << 22  # bytes that are searched at once
DICOM_EXTENSION = 2  # NIfTI's code of a header extension that holds DICOM tags

BinaryStream = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True)
class Leak:
    """A file that tells who a patient is; `where` is `name` or `content`. What it tells is not repeated."""

    path: Path
    where: str


def dicom_files(inputs: Iterable[Path]) -> list[Path]:
    """The DICOM files at `inputs`, files and folders of them."""
    from pydicom.misc import is_dicom

    files = [p for given in inputs for p in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    return [p for p in files if p.is_file() and p.stat().st_size > 132 and is_dicom(p)]


def identities(inputs: Iterable[Path]) -> frozenset[str]:
    """What the DICOM files at `inputs` (files, and folders of them) say of who their patients are.

    Raises:
        UserError: if there is none.
    """
    found = dicom_files(inputs)
    if not found:
        raise UserError("no DICOM file in what was given", "name the files that the results were made from")
    return frozenset[str]().union(*map(patient_identity, found))


def find_leaks(folder: Path, identity: Iterable[str], *, sources: Collection[Path] = ()) -> list[Leak]:
    """Files in `folder` whose name or content has one of the texts in `identity`, in any case of letters.

    Packed content (gzip, zip) is searched unpacked. Texts of fewer than five letters are searched in names
    and text only.

    Args:
        folder: where to look.
        identity: the texts.
        sources: files whose content is not searched, since it has to tell: the DICOM files.

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
        if path.is_file() and path not in sources and _content_tells(path, secrets):
            leaks.append(Leak(path, "content"))
    return leaks


def _content_tells(path: Path, secrets: Sequence[str]) -> bool:
    least = 0 if path.suffix in TEXT_SUFFIXES else SHORTEST_IN_BYTES
    wanted = [secret.encode() for secret in secrets if len(secret) >= least]
    with path.open("rb") as file:
        if _stream_tells(file, wanted):
            return True
    with suppress(OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError):  # damaged or encrypted
        return any(_stream_tells(stream, wanted) for stream in _unpacked(path))
    return False


def _unpacked(path: Path) -> Iterator[BinaryStream]:
    """The packed parts of a file, as streams of what they hold."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        with gzip.open(path) as stream:
            yield stream
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    with archive.open(member) as stream:
                        yield stream


def _stream_tells(stream: BinaryStream, wanted: Sequence[bytes]) -> bool:
    overlap = max(map(len, wanted), default=1) - 1
    last = b""
    while piece := stream.read(PIECE):
        text = last + piece.lower()
        if any(secret in text for secret in wanted):
            return True
        last = text[max(0, len(text) - overlap) :]
    return False


def check(folders: Sequence[Path]) -> list[Finding]:
    """`opsin doctor`'s look for patient tags in folders of data and results.

    What the DICOM files among them say of their patients is looked for in the names of all files, and in the
    content of all but the DICOM files themselves. NIfTI headers are looked at for a name of their own.
    """
    sources = frozenset(dicom_files(folders))
    by_file = {path: patient_identity(path) for path in sources}
    identity = frozenset[str]().union(*by_file.values())
    telling = sum(bool(found) for found in by_file.values())
    findings = []
    if telling:
        findings.append(
            Finding(
                "patient tags", f"in {telling} DICOM files", "remove the tags before you pass the files on"
            )
        )
    for folder in folders:
        for leak in find_leaks(folder, identity, sources=sources):
            shown = conceal(str(leak.path), identity)
            findings.append(
                Finding("patient tags", f"{leak.where} of {shown}", "rename it, or make it anew without")
            )
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_volume(p) and p not in sources):
            if _header_names_someone(path):
                shown = conceal(str(path), identity)
                findings.append(
                    Finding("patient tags", f"db_name or DICOM tags in the header of {shown}", "clear them")
                )
    if findings:
        return findings
    compared = f"compared with {len(sources)} DICOM files" if sources else "no DICOM file to compare with"
    return [Finding("patient tags", f"none in {', '.join(map(str, folders))}; {compared}")]


def _header_names_someone(path: Path) -> bool:
    """Whether a NIfTI header has a database name, where converters write the patient's, or DICOM tags."""
    try:
        header: Any = nib.load(path).header
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError):
        return False  # a damaged file is the data checker's business
    if not isinstance(header, nib.Nifti1Header):
        return False
    codes = [extension.get_code() for extension in header.extensions]
    return bool(bytes(header["db_name"]).strip(b"\0 ")) or DICOM_EXTENSION in codes
