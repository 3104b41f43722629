"""Each package builds a wheel; core's wheel alone, in a bare environment, runs without mmdet."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


def _run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(package: Path, out: Path) -> Path:
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, package)
    return next(out.glob("*.whl"))


@pytest.mark.parametrize("package", [ROOT, *PACKAGES], ids=lambda path: path.name)
def test_package_builds_a_wheel_with_its_data(package: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(_build(package, tmp_path)).namelist()
    assert "opsin/__init__.py" not in names
    if package != ROOT:
        module = f"opsin/{package.name}"
        sources = {
            p.relative_to(package / "src").as_posix() for p in (package / "src").rglob("*") if p.is_file()
        }
        kept = {name for name in sources if "__pycache__" not in name}
        assert kept <= set(names)
        assert f"{module}/__init__.py" in names
        assert any(name.endswith("/systems.toml") for name in names)  # of each task, where there are several


@pytest.mark.slow
def test_core_alone_runs_in_a_bare_environment_without_mmdet(tmp_path: Path) -> None:
    wheel = _build(ROOT / "packages" / "core", tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    script = """
import sys, torch
from opsin.core import create_backbone, list_models
from opsin.core.systems import systems
from opsin.registry import MODELS
maps = MODELS.build(dict(type="opsin.ConvNeXt", arch="tiny"))(torch.rand(1, 3, 64, 64))
assert [m.shape[-1] for m in maps] == [16, 8, 4, 2], maps
assert "hat_s_x4" not in list_models() and "vim_tiny" in list_models()
heavy = {"mmdet", "mmseg", "monai", "transformers", "opsin.detection"} & set(sys.modules)
assert not heavy, heavy
import importlib.util
assert importlib.util.find_spec("mmdet") is None
print("ok")
"""
    assert _run(python, "-c", script).strip().endswith("ok")
    _run(tmp_path / "venv" / "bin" / "opsin", "doctor")
