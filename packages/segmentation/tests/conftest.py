from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opsin.segmentation.samples import write


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sample pictures; tests read them only."""
    folder = tmp_path_factory.mktemp("samples")
    write(folder, train=12, val=4)
    return folder
