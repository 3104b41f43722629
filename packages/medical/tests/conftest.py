"""What several test files of this package need."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def segmentation_samples(tmp_path_factory):
    """The sample data sets of medical_segmentation."""
    from opsin.medical.segmentation.samples import write_samples

    folder = tmp_path_factory.mktemp("medical_segmentation")
    write_samples(folder)
    return folder
