import pytest
import torch
import torch.nn.functional as F

from opsin.core.layers.neighbourhoods import neighbourhoods


@pytest.mark.parametrize(
    ("block", "halo"),
    [((4, 4), (0, 0)), ((4, 4), (1, 1)), ((4, 4), (2, 3)), ((3, 5), (2, 0)), ((2, 1), (3, 4))],
)
def test_neighbourhoods_are_the_overlapping_windows_of_unfold(block, halo):
    (b, c), (h, v) = block, halo
    x = torch.randn(2, 4 * b, 3 * c, 5)
    padded = F.pad(x, (0, 0, v, v, h, h))
    wanted = padded.unfold(1, b + 2 * h, b).unfold(2, c + 2 * v, c).permute(0, 1, 2, 4, 5, 3)
    got = neighbourhoods(x, block, halo)
    assert torch.equal(got, wanted)
    assert got.is_contiguous()


def test_gradient_counts_how_many_blocks_see_a_cell():
    x = torch.zeros(1, 6, 6, 1, requires_grad=True)
    neighbourhoods(x, (2, 2), (1, 1)).sum().backward()
    once_or_twice = torch.tensor([1.0, 2, 2, 2, 2, 1])
    assert torch.equal(x.grad[0, :, :, 0], once_or_twice[:, None] * once_or_twice)
