"""The shape of the repository: who may import whom, names that say something, tables that are up to date."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from opsin.core.models import create_model, get_model, list_models
from opsin.core.systems import systems
from opsin.core.task import tasks

ROOT = Path(__file__).parents[1]
PACKAGES = {path.parent.name: path.parent for path in sorted(ROOT.glob("packages/*/pyproject.toml"))}


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _declared(package: str) -> set[str]:
    project = tomllib.loads((PACKAGES[package] / "pyproject.toml").read_text())["project"]
    extras = [d for group in project.get("optional-dependencies", {}).values() for d in group]
    return {re.split(r"[\[<>=!~ ;]", dependency)[0] for dependency in [*project["dependencies"], *extras]}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_itself_and_the_packages_it_names(package: str) -> None:
    allowed = {package} | {name.removeprefix("opsin-") for name in _declared(package)} | {"registry"}
    siblings = set(PACKAGES) - allowed
    for file in (PACKAGES[package] / "src").rglob("*.py"):
        for name in _imports(file):
            parts = name.split(".")
            assert not (parts[0] == "opsin" and len(parts) > 1 and parts[1] in siblings), (
                f"{file} imports {name}"
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_openmmlab_packages_are_imported_only_where_they_are_declared(package: str) -> None:
    distributions = {
        "mmdet": "mmdet",
        "mmseg": "mmsegmentation",
        "monai": "monai",
        "transformers": "transformers",
    }
    missing = {
        module for module, distribution in distributions.items() if distribution not in _declared(package)
    }
    for file in (PACKAGES[package] / "src").rglob("*.py"):
        if "compat" in file.parts:  # patches these libraries where they are installed
            continue
        used = {name.split(".")[0] for name in _imports(file)} & missing
        assert not used, f"{file} imports {used}, which {package} does not declare"


def test_opsin_is_a_namespace_package() -> None:
    assert not list(ROOT.glob("packages/*/src/opsin/__init__.py"))


def test_no_file_has_a_name_that_says_nothing() -> None:
    vague = re.compile(r"^(utils?|misc|helpers?|common|base\d*)$")
    assert not [
        p for p in ROOT.glob("packages/*/src/**/*.py") if vague.match(p.stem) or vague.match(p.parent.name)
    ]


@pytest.mark.parametrize("slug", systems())
def test_system_registers_exactly_the_models_that_its_table_names(slug: str) -> None:
    system = systems()[slug]
    system.register()
    for name in system.models:
        assert get_model(name).system == slug


@pytest.mark.parametrize("slug", systems())
def test_system_has_its_page_and_its_configs_and_its_cases(slug: str) -> None:
    system = systems()[slug]
    assert (ROOT / "docs" / "systems" / f"{slug}.md").is_file()
    known = {name for task in tasks().values() for name in task.configs()}
    assert set(system.configs) <= known
    assert system.configs, f"{slug} has no config for its published recipe"
    pinned = {path.stem for path in ROOT.glob(f"packages/*/tests/parity/{slug}/*.json")}
    assert set(system.cases) == pinned


def test_every_listed_model_can_be_created() -> None:
    import torch

    names = list_models()
    assert len(names) == len(set(names)) > 0
    for name in names:
        with torch.device("meta"):
            assert sum(p.numel() for p in create_model(name).parameters()) > 0


def test_generated_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "tools" / "docs_tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.stale_pages() == []
