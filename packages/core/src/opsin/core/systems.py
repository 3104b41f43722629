"""The published systems that are installed here, read from each package's `systems.toml`.

One table a system, its key the slug:

    [convnext]
    title = "A ConvNet for the 2020s"
    paper = "arXiv 2201.03545"
    year = 2022
    code = "facebookresearch/ConvNeXt"            # the authors' code, if published
    weights = "MIT"                               # licence under which the authors' weights come
    module = "opsin.core.backbones.convnext"      # importing it registers the models and parity adapters
    models = ["convnext_tiny", …]
    configs = ["convnext_tiny_imagenet", …]       # short names
    cases = ["convnext-tiny-cls", …]              # public parity cases that the tests run
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module, resources
from typing import Any

from opsin.core.errors import UserError, unknown
from opsin.core.task import tasks


@dataclass(frozen=True)
class System:
    """One published system; `package` is the import name of the package that holds it."""

    slug: str
    package: str
    title: str
    paper: str
    year: int
    module: str
    code: str = ""
    weights: str = ""
    models: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()

    def register(self) -> None:
        """Imports the module that registers the system's models and parity adapters."""
        import_module(self.module)


@cache
def systems() -> dict[str, System]:
    """Every installed system by slug: core's backbones and those of the installed task packages."""
    packages = ["opsin.core", *sorted({task.package for task in tasks().values()})]
    return {system.slug: system for package in packages for system in _read(package)}


def get_system(slug: str) -> System:
    """The installed system `slug`, or a `UserError` with the nearest slugs."""
    if slug not in systems():
        raise unknown("system", slug, systems())
    return systems()[slug]


def _read(package: str) -> list[System]:
    file = resources.files(package) / "systems.toml"
    if not file.is_file():
        return []
    known = {f.name for f in fields(System)}
    found = []
    for slug, row in tomllib.loads(file.read_text(encoding="utf-8")).items():
        extra = sorted(set(row) - known)
        if extra:
            raise UserError(f"{file}: [{slug}] has unknown keys {', '.join(extra)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        found.append(System(slug=slug, package=package, **values))
    return found
