from pathlib import Path

import pytest

from opsin.classification.samples import write


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    """The sample data set in full."""
    folder = tmp_path_factory.mktemp("samples")
    write(folder)
    return folder


@pytest.fixture(scope="session")
def few_samples(tmp_path_factory) -> Path:
    """Six training and two validation pictures of each class."""
    folder = tmp_path_factory.mktemp("few_samples")
    write(folder, train=6, val=2)
    return folder
