"""Tasks: how a package announces itself to opsin.

A distribution names a `Task` in the entry-point group `opsin.tasks`. The registries, the command line and the
docs find packages this way alone, so a third party's package is as good as opsin's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from opsin.core.errors import UserError, unknown

ENTRY_POINT_GROUP = "opsin.tasks"

# Tasks of opsin's own packages, so that a config of a package that is not installed can name it.
OFFICIAL_PACKAGES = {
    "classification": "opsin-classification",
    "detection": "opsin-detection",
    "segmentation": "opsin-segmentation",
    "panoptic": "opsin-segmentation",
    "dense_prediction": "opsin-segmentation",
    "open_vocabulary": "opsin-segmentation",
    "promptable": "opsin-segmentation",
    "weakly_supervised": "opsin-segmentation",
    "xray_detection": "opsin-detection",
    "super_resolution": "opsin-restoration",
    "cloud_removal": "opsin-restoration",
    "metalens": "opsin-restoration",
    "compression": "opsin-restoration",
    "medical_segmentation": "opsin-medical",
    "medical_classification": "opsin-medical",
    "medical_pretraining": "opsin-medical",
    "tracking": "opsin-tracking",
    "text_detection": "opsin-ocr",
}


@dataclass(frozen=True)
class Task:
    """One kind of work, and where its parts are; nothing is imported until it is asked for.

    Args:
        name: in lower case with underscores, as `opsin samples NAME` and `task = "NAME"` in a config say it.
        summary: one line for people.
        package: import name of the package that holds `configs/` and `systems.toml` (`opsin.detection`).
        modules: modules whose import registers the task's classes.
        predictor: `module:Class` of its `opsin.core.engine.predictor.Predictor`.
        samples: `module:function`, called as `function(directory, seed=0)`, writes a small data set there in
            the task's standard format.
        metric: the key of the number that people quote (`coco/bbox_mAP`); higher is better.
        commands: modules with `register(app)` that add the task's own verbs to `opsin`; each import of theirs
            that is slow stands inside a function.
        checks: `module:function`s that `opsin doctor DIR…` calls as `function(folders)`; each gives a list of
            `opsin.core.cli.doctor.Finding`. Tasks of one package may name the same one.
    """

    name: str
    summary: str
    package: str
    modules: tuple[str, ...]
    predictor: str
    samples: str
    metric: str
    commands: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    def register(self) -> None:
        """Imports the modules that register the task's classes."""
        for module in self.modules:
            import_module(module)

    def load_predictor(self) -> Any:
        """The task's predictor class."""
        return load(self.predictor)

    def write_samples(self, directory: Path, seed: int = 0) -> None:
        """Writes the task's sample data set into `directory`."""
        load(self.samples)(directory, seed=seed)

    def config_dir(self) -> Path:
        """The folder of the task's configs."""
        return Path(str(resources.files(self.package))) / "configs"

    def configs(self) -> dict[str, Path]:
        """Short name (file stem) to path of every runnable config; `_` begins the names of bases."""
        root = self.config_dir()
        paths = [p for p in sorted(root.rglob("*.py")) if "/_" not in f"/{p.relative_to(root).as_posix()}"]
        return {path.stem: path for path in paths}


def load(target: str) -> Callable[..., Any]:
    """The function or class that `module:name` names."""
    module, _, name = target.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), name)
    return loaded


@dataclass(frozen=True)
class BrokenTask:
    """An entry point that can't be loaded, and why; `opsin doctor` shows it."""

    entry: str
    reason: str


@cache
def _discover() -> tuple[dict[str, Task], tuple[BrokenTask, ...]]:
    found: dict[str, Task] = {}
    broken: list[BrokenTask] = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        try:
            task = entry.load()
        except Exception as error:  # one broken package must not take the others down
            broken.append(BrokenTask(entry.value, f"{type(error).__name__}: {error}"))
            logging.getLogger("opsin").warning("task package %s can't be loaded: %s", entry.value, error)
            continue
        if not isinstance(task, Task):
            kind = type(task).__name__
            raise UserError(f"entry point {entry.value} of {ENTRY_POINT_GROUP} is a {kind}, not a Task")
        found[task.name] = task
    return found, tuple(broken)


def tasks() -> dict[str, Task]:
    """Every installed task by name; a package that can't be loaded is logged and left out."""
    return _discover()[0]


def broken_tasks() -> tuple[BrokenTask, ...]:
    """The entry points that can't be loaded."""
    return _discover()[1]


def get_task(name: str) -> Task:
    """The installed task `name`; hyphens count as underscores.

    Raises:
        UserError: when no installed package has it; the message names the package to install if it is known.
    """
    name = name.replace("-", "_")
    installed = tasks()
    if name in installed:
        return installed[name]
    if name in OFFICIAL_PACKAGES:
        package = OFFICIAL_PACKAGES[name]
        raise UserError(
            f"the task {name!r} is in {package}, which is not installed", f"pip install {package}"
        )
    raise unknown("task", name, installed)


@cache
def import_tasks() -> None:
    """Registers the classes of every installed task (once)."""
    for task in tasks().values():
        task.register()
