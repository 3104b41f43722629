import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops.deform_roi_pool import deform_roi_pool
from opsin.core.ops.roi_align import roi_align, roi_align_reference
from opsin.core.ops.roi_pool import EDGES, roi_pool, roi_pool_reference


def random_regions(count: int, images: int, seed: int) -> Tensor:
    """Regions on a picture of about 100 pixels, some of them partly or wholly outside."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 140 - 30
    size = torch.rand(count, 2, generator=generator) ** 2 * 90
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + size], 1)


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    size=st.tuples(*[st.integers(1, 17)] * 2),
    channels=st.sampled_from([1, 3, 16, 37]),
    bins=st.tuples(*[st.integers(1, 5)] * 2),
    count=st.integers(0, 6),
    ratio=st.integers(0, 3),
    mode=st.sampled_from(["avg", "max"]),
    aligned=st.booleans(),
    seed=st.integers(0, 999),
)
def test_roi_align_is_the_mean_or_maximum_of_its_samples(
    size: tuple[int, int],
    channels: int,
    bins: tuple[int, int],
    count: int,
    ratio: int,
    mode: str,
    aligned: bool,
    seed: int,
) -> None:
    x, rois = random_map(2, channels, *size, seed=seed), random_regions(count, 2, seed)
    out = roi_align(x, rois, bins, 0.125, ratio, mode, aligned)
    want = roi_align_reference(x.double(), rois.double(), bins, 0.125, ratio, mode, aligned)
    assert out.shape == (count, channels, *bins)
    torch.testing.assert_close(out, want.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_average_gradient(backend: str, ratio: int) -> None:
    x, rois = random_map(2, 2, 5, 4).double().requires_grad_(), random_regions(4, 2, 1).double()
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (2, 3), 0.0625, ratio), x)


@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_maximum_gradient(ratio: int) -> None:
    x, rois = random_map(2, 1, 5, 4).double().requires_grad_(), random_regions(3, 2, 1).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (2, 1), 0.0625, ratio, "max"), x, fast_mode=True
    )


def test_roi_align_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rois = random_map(2, 24, 30, 40), random_regions(20, 2, 2)
    results = {}
    for numba in ("1", "0"):
        monkeypatch.setenv("OPSIN_NUMBA", numba)
        leaf = x.clone().requires_grad_()
        out = roi_align(leaf, rois, 7, 0.25)
        out.square().sum().backward()
        results[numba] = (out.detach(), leaf.grad)
    torch.testing.assert_close(results["1"], results["0"], rtol=1e-4, atol=1e-4)


def test_roi_align_takes_strided_maps_and_half_precision() -> None:
    x, rois = random_map(1, 16, 20, 20), random_regions(5, 1, 3)
    want = roi_align(x, rois, 3, 0.125)
    torch.testing.assert_close(
        roi_align(x.contiguous(memory_format=torch.channels_last), rois, 3, 0.125), want
    )
    for dtype in (torch.bfloat16, torch.float16):
        half = roi_align(x.to(dtype), rois, 3, 0.125)  # the regions keep their precision
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), want, rtol=0.02, atol=0.02)


def test_roi_align_does_not_depend_on_the_number_of_threads() -> None:
    x, rois = random_map(1, 256, 20, 20).requires_grad_(), random_regions(50, 1, 4)
    threads, grads = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            grads.append(torch.autograd.grad(roi_align(x, rois, 7, 0.125).sum(), x)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*grads)


def test_roi_align_of_nan_regions_is_zero(backend: str) -> None:
    rois = torch.tensor([[0, float("nan"), 0, 8, 8], [0, 0, 0, 8, 8]])
    for ratio in (0, 2):
        out = roi_align(torch.ones(1, 2, 9, 9), rois, 2, 1.0, ratio)
        assert out[0].abs().sum() == 0 and torch.equal(out[1], torch.ones(2, 2, 2))


def test_roi_align_refuses_what_it_cannot_pool(backend: str) -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="negative width"):
        roi_align(x, torch.tensor([[0.0, 5, 5, 1, 6]]), 2)
    with pytest.raises(ValueError, match="batch of 1"):
        roi_align(x, torch.tensor([[1.0, 0, 0, 1, 1]]), 2)
    with pytest.raises(ValueError, match="'mean' is neither"):
        roi_align(x, torch.zeros(1, 5), 2, pool_mode="mean")


@given(
    size=st.tuples(*[st.integers(1, 17)] * 2),
    bins=st.tuples(*[st.integers(1, 5)] * 2),
    count=st.integers(0, 6),
    edges=st.sampled_from(EDGES),
    seed=st.integers(0, 999),
)
def test_roi_pool_is_the_maximum_of_its_cells(
    size: tuple[int, int], bins: tuple[int, int], count: int, edges: str, seed: int
) -> None:
    x, rois = random_map(2, 3, *size, seed=seed), random_regions(count, 2, seed)
    out = roi_pool(x, rois, bins, 0.125, edges)
    assert torch.equal(out, roi_pool_reference(x, rois, bins, 0.125, edges))


def test_roi_pool_rounds_half_away_from_zero() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert roi_pool(x, torch.tensor([[0, 0.5, 0.5, 1.49, 1.49]]), 1).item() == 5  # cell (1, 1) alone
    assert roi_pool(x, torch.tensor([[0, 0.5, 0.5, 1.5, 1.5]]), 1).item() == 10  # up to cell (2, 2)


@pytest.mark.parametrize("edges", EDGES)
def test_roi_pool_gradient(edges: str) -> None:
    x, rois = random_map(2, 1, 5, 4).double().requires_grad_(), random_regions(3, 2, 5).double()
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, rois, (2, 1), 0.0625, edges), x, fast_mode=True)


@given(count=st.integers(0, 5), ratio=st.integers(0, 2), seed=st.integers(0, 999))
def test_deform_roi_pool_without_offsets_is_roi_align(count: int, ratio: int, seed: int) -> None:
    x, rois = random_map(2, 3, 11, 9, seed=seed), random_regions(count, 2, seed)
    moved = torch.zeros(count, 2, 3, 2)
    want = roi_align(x, rois, (3, 2), 0.125, ratio)
    for offset in (None, moved):
        torch.testing.assert_close(
            deform_roi_pool(x, rois, offset, (3, 2), 0.125, ratio), want, rtol=1e-4, atol=1e-5
        )


def test_deform_roi_pool_offsets_move_bins_by_shares_of_the_region() -> None:
    x = random_map(1, 2, 20, 20)
    rois = torch.tensor([[0.0, 4, 5, 8, 7]])
    offset = torch.tensor([1.5, 2.0]).view(1, 2, 1, 1)  # x: 1.5 * 0.5 * 4 = 3 cells, y: 2 * 0.5 * 2 = 2 cells
    moved = deform_roi_pool(x, rois, offset, 1, 1.0, 2, gamma=0.5)
    torch.testing.assert_close(moved, roi_align(x, rois + torch.tensor([0.0, 3, 2, 3, 2]), 1, 1.0, 2))


def test_deform_roi_pool_gradient() -> None:
    x, rois = random_map(2, 2, 6, 7).double().requires_grad_(), random_regions(3, 2, 7).double()
    offset = random_map(3, 2, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, o: deform_roi_pool(x, rois, o, 2, 0.0625, 2), (x, offset))
