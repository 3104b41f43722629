import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops import modulated_deform_conv
from opsin.core.ops.deform_conv import deform_conv2d
from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d, modulated_deform_conv2d_reference

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
pairs = st.tuples(*[st.integers(1, 3)] * 2)


def make(
    seed: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
    reach: float = 3.0,
    batch: int = 2,
) -> Inputs:
    """x, offset, mask, weight and bias; the offsets reach beyond the map."""
    g = torch.Generator().manual_seed(seed)
    out = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    taps, channels = kernel[0] * kernel[1], 2 * groups * deform_groups
    return (
        torch.randn(batch, channels, *size, generator=g),
        torch.randn(batch, 2 * deform_groups * taps, *out, generator=g) * reach,
        torch.rand(batch, deform_groups * taps, *out, generator=g),
        torch.randn(3 * groups, channels // groups, *kernel, generator=g),
        torch.randn(3 * groups, generator=g),
    )


@given(
    seed=st.integers(0, 999),
    size=st.tuples(*[st.integers(7, 12)] * 2),
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(*[st.integers(0, 2)] * 2),
    dilation=pairs,
    groups=st.integers(1, 2),
    deform_groups=st.integers(1, 2),
    masked=st.booleans(),
)
def test_output_is_that_of_the_definition(
    seed: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
    masked: bool,
) -> None:
    x, offset, mask, weight, bias = make(seed, size, kernel, stride, padding, dilation, groups, deform_groups)
    settings = (stride, padding, dilation, groups, deform_groups)
    given_mask, given_bias = (mask, bias) if masked else (None, None)
    out = modulated_deform_conv2d(x, offset, given_mask, weight, given_bias, *settings)
    doubles = [None if t is None else t.double() for t in (x, offset, given_mask, weight, given_bias)]
    want = modulated_deform_conv2d_reference(*doubles, *settings)
    torch.testing.assert_close(out, want.float(), rtol=1e-4, atol=1e-4)


def test_without_offsets_it_is_a_convolution(backend: str) -> None:
    x, offset, _, weight, _ = make(0, (9, 8), (3, 3), (2, 1), (1, 2), (1, 2), 2, 1)
    out = deform_conv2d(x, torch.zeros_like(offset), weight, (2, 1), (1, 2), (1, 2), 2)
    torch.testing.assert_close(
        out, F.conv2d(x, weight, None, (2, 1), (1, 2), (1, 2), 2), rtol=1e-4, atol=1e-4
    )


def test_a_whole_cell_of_offset_is_a_shift() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.zeros(1, 2, 3, 4)
    offset[:, 0] = 1  # y first
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    assert torch.equal(out[0, 0, :2], x[0, 0, 1:]) and out[0, 0, 2].abs().sum() == 0


@pytest.mark.parametrize("masked", [True, False])
def test_gradients(backend: str, masked: bool) -> None:
    settings = ((2, 1), (1, 0), (1, 2), 2, 2)
    inputs = [t.double().requires_grad_() for t in make(1, (5, 6), (2, 3), *settings[:3], 2, 2, batch=1)]  # type: ignore[arg-type]
    x, offset, mask, weight, bias = inputs

    def convolve(*given: Tensor) -> Tensor:
        x, offset, weight, bias, *masks = given
        return modulated_deform_conv2d(x, offset, masks[0] if masks else None, weight, bias, *settings)

    leaves = (x, offset, weight, bias, *([mask] if masked else []))
    assert torch.autograd.gradcheck(convolve, leaves, fast_mode=backend == "torch")


def test_padded_taps_of_a_fresh_layer_have_no_offset_gradient(backend: str) -> None:
    x, offset, mask, weight, _ = make(2, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, reach=0.0)
    offset.requires_grad_()
    modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1).sum().backward()
    assert offset.grad is not None
    assert offset.grad[:, 0, 0].abs().sum() == 0  # tap (-1, -1) of the first row lies at y = -1
    assert offset.grad[:, 0, 1].abs().sum() > 0


def test_blocks_of_the_columns_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make(3, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1, 2)
    results = []
    for numbers in (1 << 21, 400):
        monkeypatch.setattr(modulated_deform_conv, "BLOCK_NUMBERS", numbers)
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = modulated_deform_conv2d(*leaves, 1, 1, 1, 1, 2)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)


def test_nan_and_infinite_offsets_sample_nothing(backend: str) -> None:
    x, offset, mask, weight, _ = make(4, (7, 7), (1, 1), (1, 1), (0, 0), (1, 1), 1, 1)
    offset[0, 0, 0, 0], offset[0, 1, 0, 1], offset[0, 0, 0, 2] = float("nan"), torch.inf, -1e30
    out = modulated_deform_conv2d(x, offset, mask, weight)
    assert out[0, :, 0, :3].abs().sum() == 0 and bool(out.isfinite().all())


def test_an_empty_batch_and_half_precision() -> None:
    x, offset, mask, weight, bias = make(5, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    assert modulated_deform_conv2d(x[:0], offset[:0], mask[:0], weight, bias, 1, 1).shape == (0, 3, 8, 8)
    want = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    half = modulated_deform_conv2d(x.bfloat16(), offset, mask, weight.bfloat16(), bias, 1, 1)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), want, rtol=0.05, atol=0.05)


def test_autocast_does_not_round_the_products(backend: str) -> None:
    x, offset, mask, weight, bias = make(5, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    want = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        got = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    torch.testing.assert_close(got, want)


def test_wrong_shapes_are_named() -> None:
    x, offset, mask, weight, _ = make(6, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
    with pytest.raises(ValueError, match=r"offset is \[2, 17, 8, 8\] and should be \[2, 18, 8, 8\]"):
        modulated_deform_conv2d(x, offset[:, 1:], mask, weight, None, 1, 1)
    with pytest.raises(ValueError, match="do not divide"):
        modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 3)
