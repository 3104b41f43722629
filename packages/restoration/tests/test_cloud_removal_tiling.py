import numpy as np
import pytest
import torch

from opsin.core.errors import UserError
from opsin.restoration.models import BlendedTiling


def local_network(image):
    """Reads two pixels around a pixel."""
    weight = torch.linspace(-1, 1, 25).view(1, 1, 5, 5)
    return lambda region: torch.nn.functional.conv2d(image[(..., *region)], weight, padding=2)[0]


@pytest.mark.parametrize("size", [(50, 70), (33, 100), (20, 20), (32, 33)])
def test_a_margin_as_wide_as_the_receptive_field_makes_tiles_exact(size):
    image = torch.rand(1, 1, *size)
    run = local_network(image)
    whole = run((slice(0, size[0]), slice(0, size[1])))
    tiled = BlendedTiling(size=32, overlap=10, margin=2).restore(run, *size)
    torch.testing.assert_close(torch.from_numpy(tiled), whole, atol=1e-5, rtol=1e-5)


def test_tiles_are_of_one_size_and_cover_the_picture():
    tiling = BlendedTiling(size=32, overlap=8)
    regions = tiling.regions(70, 20)
    assert [(rows.start, rows.stop) for rows, _ in regions] == [(0, 32), (19, 51), (38, 70)]
    assert all(columns == slice(0, 20) for _, columns in regions)


def test_tiles_that_disagree_fade_into_one_another():
    count = iter(range(100))
    tiling = BlendedTiling(size=32, overlap=8)
    blended = tiling.restore(lambda region: torch.full((1, 32, 20), float(next(count))), 56, 20)
    column = blended[0, :, 0]
    assert column[0] == 0 and column[-1] == 1 and (np.diff(column) >= 0).all()
    assert np.diff(column).max() <= 1 / 8 + 1e-6


def test_progress_counts_every_tile():
    seen = []
    run = local_network(torch.rand(1, 1, 56, 20))
    BlendedTiling(size=32, overlap=8).restore(run, 56, 20, lambda *done: seen.append(done))
    BlendedTiling(size=64, overlap=8).restore(run, 56, 20, lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2), (1, 1)]


def test_overlaps_without_room_are_told():
    with pytest.raises(UserError, match="more than two margins and less than the tile"):
        BlendedTiling(size=32, overlap=8, margin=4)
    with pytest.raises(UserError, match="tiles of 32 pixels"):
        BlendedTiling(size=32, overlap=32)
