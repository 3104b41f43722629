"""What several test files of this package need."""

import numpy as np
import pytest
import torch

from opsin.restoration.models import HAT
from opsin.restoration.samples import write_samples


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def small_hat():
    """A network of a thousandth of HAT's cost whose branches all count; arguments replace its own."""

    def build(**changes):
        arguments = dict(
            img_size=32,
            window_size=8,
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 2),
            squeeze_factor=2,
            conv_scale=0.5,
        )
        network = HAT(**{**arguments, **changes}).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        return network

    return build


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """The sample data set."""
    folder = tmp_path_factory.mktemp("super_resolution")
    write_samples(folder)
    return folder
