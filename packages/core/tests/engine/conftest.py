"""Puts this folder on the path: its tests, and the processes that they start, import `engine_toy`."""

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)


@pytest.fixture
def environment() -> dict[str, str]:
    """Environment variables for a process that imports `engine_toy`."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": HERE}
