"""Pictures in a tar file, by paths that go on behind its name: `imagenet/train.tar/n01440764/1.jpg`.

An uncompressed tar says where each file begins, so that any of them is one seek away; its table of contents
is read once a process.
"""

from __future__ import annotations

import tarfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from opsin.core.errors import UserError


def members(archive: Path) -> list[Path]:
    """The files in `archive`, sorted, each as a path behind the archive's.

    Raises:
        UserError: if it is no uncompressed tar file, or a damaged one.
    """
    return sorted(archive / name for name in _contents(archive, archive.stat().st_mtime_ns))


def read_member(path: Path) -> bytes | None:
    """The bytes of a file in an archive; None if nothing above `path` is a file that could be one.

    Raises:
        UserError: if there is an archive and it has no such file, or it is no uncompressed tar file.
    """
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None:
        return None
    name = path.relative_to(archive).as_posix()
    contents = _contents(archive, archive.stat().st_mtime_ns)
    if name not in contents:
        raise UserError(f"{archive} holds no {name}")
    begin, size = contents[name]
    with archive.open("rb") as file:
        file.seek(begin)
        return file.read(size)


@lru_cache(maxsize=8)
def _contents(archive: Path, changed: int) -> dict[str, tuple[int, int]]:
    """First byte and number of bytes of every file; `changed` is when the archive was last written."""
    del changed  # it makes a rewritten archive another one for the cache
    try:
        with tarfile.open(archive, "r:") as tar:
            files = [member for member in tar if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{archive} is not an uncompressed tar file ({error})",
            "unpack it, or pack it without compression",
        ) from None
    return {PurePosixPath(m.name).as_posix().removeprefix("./"): (m.offset_data, m.size) for m in files}
