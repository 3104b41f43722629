"""What a run needs from the machine: a work dir of its own that can be written, and the GPUs it asks for.

Failures of storage in the middle of a run become one line as well.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from opsin.core.errors import UserError
from opsin.core.files import FULL, storage_error

LOCK = ".lock"
UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def prepare_work_dir(work_dir: str | Path) -> Path:
    """Creates `work_dir` if need be and checks that files can be written there.

    Raises:
        UserError: if not.
    """
    path = Path(work_dir).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".write-test-") as probe:
            probe.write(b"opsin")
            probe.flush()
    except OSError as error:
        raise UserError(
            f"can't write to the work dir {path}: {error.strerror}", "choose another with --work-dir"
        ) from error
    return path


@contextmanager
def exclusive(work_dir: Path) -> Iterator[None]:
    """Keeps `work_dir` for this process; only the first of a run's processes takes the lock.

    The lock is the kernel's (POSIX record locks): it goes with the process, however that ends, and workers
    that load data don't inherit it, so a killed run never blocks the next one.

    Raises:
        UserError: if another run has it.
    """
    if int(os.environ.get("RANK", 0)) != 0:
        yield
        return
    with (work_dir / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another run"
            raise UserError(
                f"the work dir {work_dir} is in use by {owner}",
                "wait for it or choose another with --work-dir",
            ) from error
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        )
        file.flush()
        yield


@contextmanager
def storage_errors(work_dir: Path) -> Iterator[None]:
    """Turns a full disk or one that became unwritable into one line.

    Raises:
        UserError: for an `OSError` of that kind; others pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | UNWRITABLE:
            raise
        raise storage_error(error, error.filename or work_dir) from error


def require_gpus(count: int) -> None:
    """Checks that the machine has `count` GPUs.

    Raises:
        UserError: if it has fewer.
    """
    present = torch.cuda.device_count()
    if count > present:
        raise UserError(
            f"{count} GPU{'s'[: count - 1]} asked for and this machine has {present or 'none'}",
            "train on the CPU with --gpus 0 and, under torchrun, env_cfg.dist_cfg.backend=gloo",
        )


def process_backend(asked: str | None) -> str:
    """The backend of `torch.distributed` for this machine: `asked`, unless that is `auto` or None.

    Raises:
        UserError: if the backend is NCCL and there are fewer GPUs than processes.
    """
    backend = asked or "auto"
    if backend == "auto":
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        require_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return backend
