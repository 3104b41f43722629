from importlib.metadata import files
from pathlib import Path

import pytest

from opsin.core.compat import opencv


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_both_distributions_still_install_the_same_files() -> None:
    plain, headless = (
        {str(path) for path in files(name) or ()} for name in ("opencv-python", "opencv-python-headless")
    )
    assert "cv2/__init__.py" in plain & headless


def test_the_tested_versions_agree() -> None:
    assert opencv.problem() is None


def test_two_versions_are_reported_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    distribution(tmp_path, "opencv-python", "4.9.0.80")
    distribution(tmp_path, "opencv-python-headless", "4.13.0.92")
    problem = opencv.problem()
    assert problem is not None
    assert "opencv-python 4.9.0.80, opencv-python-headless 4.13.0.92" in problem
    assert problem.endswith("opencv-python==4.13.0.92 opencv-python-headless==4.13.0.92")


def test_a_folder_without_its_module_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2").mkdir()
    distribution(tmp_path, "opencv-python", "4.13.0.92")
    monkeypatch.delitem(__import__("sys").modules, "cv2", raising=False)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    problem = opencv.problem()
    assert problem is not None and "cv2 is empty" in problem
