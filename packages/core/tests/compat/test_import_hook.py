import importlib
import inspect
from pathlib import Path

import pytest

from opsin.core.compat.import_hook import after_import


@pytest.fixture
def module_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_actions_run_in_order_after_the_module_and_before_its_importer(module_file: Path) -> None:
    (module_file / "hooked_number.py").write_text("number = 1\n\ndef one():\n    return 1\n")
    (module_file / "hooked_reader.py").write_text("from hooked_number import number\n")
    after_import("hooked_number", lambda module: setattr(module, "number", module.number + 1))
    after_import("hooked_number", lambda module: setattr(module, "number", module.number * 10))
    assert importlib.import_module("hooked_reader").number == 20


def test_a_hooked_module_keeps_its_source(module_file: Path) -> None:
    (module_file / "hooked_source.py").write_text("def one():\n    return 1\n")
    after_import("hooked_source", lambda module: None)
    module = importlib.import_module("hooked_source")
    assert inspect.getsource(module.one) == "def one():\n    return 1\n"
    assert module.__spec__.loader is module.__loader__


def test_an_imported_module_is_acted_on_at_once() -> None:
    seen = []
    after_import("inspect", seen.append)
    assert seen == [inspect]
