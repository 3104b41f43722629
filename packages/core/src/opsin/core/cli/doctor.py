"""`opsin doctor`: what is installed, what is missing, how to mend it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from opsin.core.cli.show import show_json, show_table
from opsin.core.errors import UserError

LIBRARIES = (
    "torch",
    "numpy",
    "mmengine",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
    "albumentations",
    "numba",
    "triton",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `mend` is empty when nothing is wrong."""

    what: str
    found: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command()(doctor)


def doctor(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]…", help="Data and results, which the installed tasks look over."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Says what is installed, what is missing and how to mend it; exit code 1 if something is broken."""
    findings = examine()
    if folders:
        findings += look_over(folders, _checks())
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        show_table(("part", "found", "to mend"), [(f.what, f.found, f.mend or "–") for f in findings])
    return 1 if any(finding.mend for finding in findings) else 0


def examine() -> list[Finding]:
    """Everything the report says, broken parts with how to mend them."""
    return [
        Finding(
            "python",
            sys.version.split()[0],
            "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer",
        ),
        Finding("machine", f"{platform.system()} {platform.machine()}"),
        *_libraries(),
        _devices(),
        _extension(),
        _opencv(),
        *_tasks(),
    ]


def look_over(folders: Sequence[Path], checks: Iterable[str]) -> list[Finding]:
    """What checks (`module:function`) say of folders of data and results.

    Raises:
        UserError: if one is no folder.
    """
    from opsin.core.task import load

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}")
    found: list[Finding] = []
    for check in checks:
        try:
            found += load(check)(folders)
        except Exception as error:  # a check that fails must not take the report down
            found.append(Finding(check, f"broken: {type(error).__name__}", "report it to its package"))
    return found


def _checks() -> list[str]:
    from opsin.core.task import tasks

    return sorted({check for task in tasks().values() for check in task.checks})


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _libraries() -> list[Finding]:
    needed = {"torch", "numpy", "mmengine", "albumentations"}
    found = []
    for name in LIBRARIES:
        present = _installed(name)
        found.append(
            Finding(
                name,
                present or "not installed",
                "" if present or name not in needed else f"pip install {name}",
            )
        )
    return found


def _devices() -> Finding:
    import torch

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    return Finding("GPUs", names or "none (the CPU is used)")


def _extension() -> Finding:
    from opsin.core.compat import apply, mmcv_ext

    apply()
    if not (_installed("mmcv-lite") or _installed("mmcv")):
        return Finding("mmcv._ext", "mmcv is not installed", "pip install mmcv-lite")
    return Finding("mmcv._ext", "opsin's own ops" if mmcv_ext.needed() else "the compiled extension of mmcv")


def _opencv() -> Finding:
    from opsin.core.compat import opencv

    found = f"{_installed('opencv-python') or '–'} and headless {_installed('opencv-python-headless') or '–'}"
    return Finding("opencv", found, opencv.problem() or "")


def _tasks() -> list[Finding]:
    from opsin.core.task import OFFICIAL_PACKAGES, broken_tasks, tasks

    found = [Finding(b.entry, f"broken: {b.reason[:150]}", "reinstall its package") for b in broken_tasks()]
    for name, task in tasks().items():
        try:
            task.register()
        except Exception as error:  # a broken installation fails in any way; the report must go on
            found.append(
                Finding(
                    f"task {name}",
                    f"broken: {type(error).__name__}: {str(error)[:120]}",
                    f"pip install --force-reinstall {OFFICIAL_PACKAGES.get(name, name)}",
                )
            )
        else:
            found.append(Finding(f"task {name}", task.package))
    missing = sorted(set(OFFICIAL_PACKAGES) - set(tasks()))
    return found + [
        Finding(f"task {name}", f"not installed (pip install {OFFICIAL_PACKAGES[name]})") for name in missing
    ]
