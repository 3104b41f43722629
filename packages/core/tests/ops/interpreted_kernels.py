"""The Triton kernels, run by Triton's interpreter on the CPU, against the ops' definitions in float64.

pytest collects this file only where it is named: `test_triton_kernels.py` runs it in a process of its own,
since `TRITON_INTERPRET=1` has to be in the environment before Triton is imported.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin.core.ops import modulated_deform_conv, triton_kernels
from opsin.core.ops.focal_loss import (
    sigmoid_focal_loss,
    sigmoid_focal_loss_reference,
    softmax_focal_loss,
    softmax_focal_loss_reference,
)
from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d, modulated_deform_conv2d_reference
from opsin.core.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_reference
from opsin.core.ops.nms import nms, nms_reference
from opsin.core.ops.roi_align import roi_align, roi_align_reference

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}  # of the largest value
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture(autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's random numbers are its own; whatever it computes, the op's kernels were imported for it."""
    torch.manual_seed(0)
    yield
    name = request.node.name.split("_of_")[0].removeprefix("test_")
    assert f"opsin.core.ops.triton_kernels.{name}" in sys.modules


def assert_same(
    op: Callable[..., Tensor], reference: Callable[..., Tensor], tensors: Sequence[Tensor], dtype: torch.dtype
) -> None:
    """Output and gradients by all `tensors` are those of the definition in float64."""
    exact = [t.detach().to(dtype).double().requires_grad_() for t in tensors]
    leaves = [t.detach().to(dtype).requires_grad_() for t in exact]
    out, want = op(*leaves), reference(*exact)
    slope = torch.randn(want.shape, dtype=torch.float64).to(dtype)
    got = [out, *torch.autograd.grad(out, leaves, slope)]
    wanted = [want, *torch.autograd.grad(want, exact, slope.double())]
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        scale = float(b.detach().abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a.double(), b, rtol=0, atol=TOLERANCE[dtype] * max(scale, 1e-3))


def attention(
    sizes: list[tuple[int, int]], batch: int, queries: int, heads: int, width: int, points: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shapes, and value, places (some off the map) and weight."""
    shapes = torch.tensor(sizes)
    value = torch.randn(batch, int(shapes.prod(1).sum()), heads, width)
    places = torch.rand(batch, queries, heads, len(sizes), points, 2) * 1.6 - 0.3
    return shapes, value, places, torch.rand(places.shape[:-1])


@pytest.mark.parametrize(("width", "dtype"), [(1, torch.float32), (5, torch.float64), (33, torch.float32)])
def test_ms_deform_attn_of_odd_sizes(width: int, dtype: torch.dtype) -> None:
    shapes, *tensors = attention([(3, 5), (1, 1), (2, 7)], 2, 3, 3, width, 2)
    assert_same(
        lambda v, p, w: ms_deform_attn(v, shapes, p, w),
        lambda v, p, w: ms_deform_attn_reference(v, shapes, p, w),
        tensors,
        dtype,
    )


def test_ms_deform_attn_of_nothing() -> None:
    for batch, queries in ((2, 0), (0, 3)):
        shapes, *tensors = attention([(2, 3)], batch, queries, 2, 4, 1)
        leaves = [t.requires_grad_() for t in tensors]
        out = ms_deform_attn(leaves[0], shapes, *leaves[1:])
        assert out.shape == (batch, queries, 8)
        assert all(g.abs().sum() == 0 for g in torch.autograd.grad(out.sum(), leaves))


def test_ms_deform_attn_of_places_that_are_no_numbers() -> None:
    shapes, value, places, weight = attention([(4, 4)], 1, 3, 1, 4, 1)
    places[0, :, 0, 0, 0, 0] = torch.tensor([torch.nan, torch.inf, -1e30])
    leaves = [t.requires_grad_() for t in (value, places, weight)]
    out = ms_deform_attn(leaves[0], shapes, *leaves[1:])
    assert out.abs().sum() == 0
    assert all(g.abs().sum() == 0 for g in torch.autograd.grad(out.sum(), leaves))


def test_ms_deform_attn_of_levels_beyond_the_values_reads_zeros() -> None:
    from opsin.core.ops.triton_kernels.ms_deform_attn import forward

    shapes, value, _, _ = attention([(2, 2)], 1, 1, 1, 2, 1)
    out, ones = torch.full((1, 1, 1, 2), torch.nan), torch.ones(1, 1, 1, 1, 1)
    forward(
        value, shapes + torch.tensor([[5, 0]]), torch.tensor([0.25, 0.9]).view(1, 1, 1, 1, 1, 2), ones, out
    )
    assert out.abs().sum() == 0


ROIS = [
    [0.0, 1, 1, 5, 6],
    [1, -3, -2, 2.5, 3],
    [0, -50, -50, -20, -20],  # off the map
    [1, 2, 2, 2, 2],  # of no area
    [0, -9, 3, 40, 4.5],
]


@pytest.mark.parametrize(
    ("dtype", "aligned", "ratio"),
    [
        (torch.float32, True, 0),
        (torch.float32, False, 2),
        (torch.float64, False, 0),
        (torch.float64, True, 2),
    ],
)
def test_roi_align_of_odd_sizes(dtype: torch.dtype, aligned: bool, ratio: int) -> None:
    rois = torch.tensor(ROIS, dtype=dtype)
    settings = ((2, 3), 0.5, ratio, "avg", aligned)
    assert_same(
        lambda x: roi_align(x, rois, *settings),
        lambda x: roi_align_reference(x, rois.double(), *settings),
        [torch.randn(2, 5, 9, 7)],
        dtype,
    )


def test_roi_align_of_more_channels_than_a_program_holds() -> None:
    rois = torch.tensor(ROIS[:1])
    x = torch.randn(1, 300, 4, 5)
    torch.testing.assert_close(roi_align(x, rois, 1, 0.5), roi_align_reference(x, rois, 1, 0.5))


def test_roi_align_of_nothing() -> None:
    for channels, regions in ((0, 2), (3, 0)):
        x = torch.randn(2, channels, 5, 5, requires_grad=True)
        out = roi_align(x, torch.tensor(ROIS[:regions]).view(regions, 5), 2)
        assert out.shape == (regions, channels, 2, 2)
        assert torch.autograd.grad(out.sum(), x)[0].abs().sum() == 0


def test_roi_align_of_endless_regions_ends() -> None:
    rois = torch.tensor([[0, torch.nan, 0, 3, 3], [0, 0, 0, torch.inf, 3], [0, -1e9, -1e9, 1e9, 1e9]])
    x = torch.ones(1, 2, 6, 6, requires_grad=True)
    out = roi_align(x, rois, 1)
    assert out[:2].abs().sum() == 0
    assert 0 <= out[2].max() < 1e-6  # nearly all of the region is off the map
    assert bool(torch.autograd.grad(out.sum(), x)[0].isfinite().all())


def test_roi_align_of_an_image_that_there_is_not_pools_zeros() -> None:
    from opsin.core.ops.triton_kernels.roi_align import backward, forward

    grid = (torch.tensor([-1, 2]), torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2, dtype=torch.long))
    pooled, maps = torch.ones(2, 1, 1, 3), torch.ones(2, 4, 4, 3)
    backward(pooled, *grid, maps)
    assert torch.equal(maps, torch.ones(2, 4, 4, 3))
    forward(maps, *grid, pooled)
    assert pooled.abs().sum() == 0


def labels(rows: int, classes: int) -> Tensor:
    """Targets, background and values that are no class among them."""
    return torch.randint(-1, classes + 2, (rows,))


FORMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "sigmoid": (sigmoid_focal_loss, sigmoid_focal_loss_reference),
    "softmax": (softmax_focal_loss, softmax_focal_loss_reference),
}


@dtypes
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_focal_loss_of_odd_sizes(form: str, dtype: torch.dtype, gamma: float, reduction: str) -> None:
    target, weight = labels(37, 11), torch.rand(11) if gamma else None
    op, reference = FORMS[form]
    doubles = None if weight is None else weight.double()
    assert_same(
        lambda x: op(x, target, gamma, 0.3, weight, reduction),
        lambda x: reference(x, target, gamma, 0.3, doubles, reduction),
        [torch.randn(37, 11) * 3],
        dtype,
    )


@pytest.mark.parametrize("form", FORMS)
def test_focal_loss_of_more_numbers_than_a_program_holds(form: str) -> None:
    op, reference = FORMS[form]
    target = torch.tensor([1500, 3, 1600])
    assert_same(
        lambda x: op(x, target), lambda x: reference(x, target), [torch.randn(3, 1600)], torch.float32
    )


@pytest.mark.parametrize("form", FORMS)
def test_focal_loss_of_half_precision_is_computed_in_single(form: str) -> None:
    op, reference = FORMS[form]
    target = labels(20, 6)
    x = torch.randn(20, 6).bfloat16()
    loss, want = op(x, target, reduction="none"), reference(x.double(), target, reduction="none")
    torch.testing.assert_close(loss.double(), want, rtol=torch.finfo(torch.bfloat16).eps, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_focal_loss_of_extreme_logits(form: str) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200, 200], [-1e4, 1e4]], requires_grad=True)
    op, reference = FORMS[form]
    loss = op(logits, torch.tensor([1, 1, 0]), reduction="none")
    torch.testing.assert_close(loss, reference(logits, torch.tensor([1, 1, 0]), reduction="none"))
    assert bool(torch.autograd.grad(loss.sum(), logits)[0].isfinite().all())


@pytest.mark.parametrize("form", FORMS)
def test_focal_loss_of_strided_logits_and_of_nothing(form: str) -> None:
    op, _ = FORMS[form]
    logits, target = torch.randn(5, 7), labels(7, 5)
    assert torch.equal(op(logits.T, target), op(logits.T.contiguous(), target))
    nothing = torch.zeros(0, 4, requires_grad=True)
    loss = op(nothing, labels(0, 4), reduction="sum")
    assert loss == 0 and torch.autograd.grad(loss, nothing)[0].shape == (0, 4)


def convolution(batch: int, groups: int, deform_groups: int, width: int) -> list[Tensor]:
    """x, offset, mask, weight and bias of a 1 x 3 kernel, stride (2, 1), padding (1, 0), dilation (1, 2)."""
    channels = groups * deform_groups * width
    return [
        torch.randn(batch, channels, 5, 8),
        torch.randn(batch, 2 * deform_groups * 3, 4, 4) * 2,
        torch.rand(batch, deform_groups * 3, 4, 4),
        torch.randn(2 * groups, channels // groups, 1, 3),
        torch.randn(2 * groups),
    ]


def assert_convolves(
    tensors: list[Tensor], groups: tuple[int, int], masked: bool, dtype: torch.dtype
) -> None:
    settings = ((2, 1), (1, 0), (1, 2), *groups)
    x, offset, mask, weight, bias = tensors

    def order(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def convolve(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, *mask: Tensor) -> Tensor:
            return function(x, offset, mask[0] if mask else None, weight, bias, *settings)

        return convolve

    leaves = [x, offset, weight, bias, *([mask] if masked else [])]
    assert_same(order(modulated_deform_conv2d), order(modulated_deform_conv2d_reference), leaves, dtype)


@pytest.mark.parametrize(("dtype", "masked"), [(torch.float32, False), (torch.float64, True)])
def test_deform_conv_of_groups(dtype: torch.dtype, masked: bool) -> None:
    assert_convolves(convolution(2, 3, 2, 1), (3, 2), masked, dtype)


def test_deform_conv_of_more_channels_than_a_program_holds() -> None:
    assert_convolves(convolution(1, 1, 1, 131), (1, 1), True, torch.float32)


def test_deform_conv_of_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulated_deform_conv, "BLOCK_NUMBERS", 5 * 3 * 2)  # five of sixteen output places
    assert_convolves(convolution(1, 1, 1, 2), (1, 1), True, torch.float32)


def test_deform_conv_of_an_empty_batch_and_of_offsets_that_are_no_numbers() -> None:
    x, offset, mask, weight, bias = convolution(1, 1, 1, 2)
    settings = ((2, 1), (1, 0), (1, 2))
    out = modulated_deform_conv2d(x[:0], offset[:0], mask[:0], weight, bias, *settings)
    assert out.shape == (0, 2, 4, 4)
    offset[0, ::2], offset[0, 1::2] = torch.nan, -1e30
    assert modulated_deform_conv2d(x, offset, mask, weight, None, *settings).abs().sum() == 0


@dtypes
@pytest.mark.parametrize("count", [0, 1, 64, 150])
def test_nms_of_any_number_of_boxes(dtype: torch.dtype, count: int) -> None:
    corners = torch.rand(count, 2, dtype=dtype) * 100
    boxes = torch.cat([corners, corners + torch.rand(count, 2, dtype=dtype) * 40], 1)
    scores = torch.rand(count).mul(50).round()  # many are equal
    for offset in (0, 1):
        assert torch.equal(nms(boxes, scores, 0.3, offset), nms_reference(boxes, scores, 0.3, offset))


def test_nms_of_more_boxes_than_the_walk_looks_back_at_together() -> None:
    corners = torch.rand(600, 2) * 100
    boxes, scores = torch.cat([corners, corners + 9], 1), torch.rand(600)
    assert torch.equal(nms(boxes, scores, 0.3), nms_reference(boxes, scores, 0.3))


def test_nms_of_a_chain_in_which_every_second_box_stays() -> None:
    left = torch.arange(150.0)
    boxes = torch.stack([left, left * 0, left + 3, left * 0 + 1], 1)  # neighbours: IoU 0.5
    assert nms(boxes, -left, 0.4).tolist() == list(range(0, 150, 2))


def test_nms_of_a_threshold_that_is_met_exactly_and_of_boxes_that_are_none() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], [torch.nan] * 4])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1, 2, 3, 4]
    assert nms(boxes, scores, 0.49).tolist() == [0, 2, 3, 4]
    infinite = torch.tensor([[-torch.inf, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 4.9]])
    assert nms(infinite, scores[:3], 0.5).tolist() == [0, 1]


def scattered() -> Any:
    """What the ops that add by atomics give for one input, and their gradients."""
    torch.manual_seed(1)
    shapes, *tensors = attention([(3, 5)], 1, 3, 2, 4, 2)
    leaves = [t.requires_grad_() for t in tensors]
    out = ms_deform_attn(leaves[0], shapes, *leaves[1:])
    return [out, *torch.autograd.grad(out.square().sum(), leaves)]


def test_ms_deform_attn_of_a_deterministic_program_takes_no_atomics(monkeypatch: pytest.MonkeyPatch) -> None:
    want = scattered()
    torch.use_deterministic_algorithms(True)
    try:
        assert triton_kernels.enabled(want[0]) and not triton_kernels.may_scatter(want[0])
        torch.testing.assert_close(scattered(), want)
    finally:
        torch.use_deterministic_algorithms(False)
