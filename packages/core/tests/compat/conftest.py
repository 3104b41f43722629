"""A Python without opsin's mends, to show what fails in it."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from opsin.core import compat

compat.apply()


@pytest.fixture
def unmended() -> Callable[[str], str]:
    """Runs code in a fresh interpreter that never imports opsin; gives the last line it wrote to stderr."""

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else ""

    return run
