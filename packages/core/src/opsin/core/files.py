"""Files that appear whole or not at all, and what a person is told when they can't be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from opsin.core.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file so that `path` is at every moment either its old or its new self, whole.

    Folders that are not there are made.

    Raises:
        UserError: if the disk is full or the place can't be written; the old file stays.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is for its owner alone
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def storage_error(error: OSError, place: str | os.PathLike[str]) -> UserError:
    """The line for a write to `place` that failed with `error`."""
    mend = "free some space and go on" if error.errno in FULL else "mend that and go on"
    return UserError(f"can't write {place}: {error.strerror}; what was saved before is intact", mend)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
