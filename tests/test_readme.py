"""The README's examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```(python|console)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_readme_has_five_examples() -> None:
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize(
    "kind, text", EXAMPLES, ids=[f"{i + 1}-{kind}" for i, (kind, _) in enumerate(EXAMPLES)]
)
def test_readme_example_runs(kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "packages").symlink_to(ROOT / "packages")
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-euc", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
