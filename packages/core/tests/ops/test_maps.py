import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops import sync_bn
from opsin.core.ops.carafe import carafe
from opsin.core.ops.cc_attention import criss_cross_attention
from opsin.core.ops.corner_pool import DIRECTIONS, corner_pool
from opsin.core.ops.masked_conv import masked_conv2d, masked_conv2d_reference
from opsin.core.ops.psa_mask import TYPES, psa_mask


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    kernel=st.sampled_from([1, 3, 5]),
    groups=st.integers(1, 2),
    scale=st.integers(1, 3),
)
def test_carafe_weighs_the_window_around_each_source_cell(
    height: int, width: int, kernel: int, groups: int, scale: int
) -> None:
    x = random_map(2, 2 * groups, height, width)
    masks = random_map(2, groups * kernel**2, height * scale, width * scale, seed=1)
    want = torch.zeros(2, 2 * groups, height * scale, width * scale)
    for i in range(height * scale):
        for j in range(width * scale):
            for tap in range(kernel**2):
                y, x_ = i // scale + tap // kernel - kernel // 2, j // scale + tap % kernel - kernel // 2
                if 0 <= y < height and 0 <= x_ < width:
                    for c in range(2 * groups):
                        want[:, c, i, j] += x[:, c, y, x_] * masks[:, c // 2 * kernel**2 + tap, i, j]
    torch.testing.assert_close(carafe(x, masks, kernel, groups, scale), want, rtol=1e-4, atol=1e-5)


def test_carafe_gradient_and_wrong_masks() -> None:
    x, masks = (
        random_map(1, 2, 2, 3).double().requires_grad_(),
        random_map(1, 9, 4, 6).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda x, m: carafe(x, m, 3, 1, 2), (x, masks))
    with pytest.raises(ValueError, match=r"should be \[1, 9, 6, 9\]"):
        carafe(x, masks, 3, 1, 3)


@pytest.mark.parametrize("mode", DIRECTIONS)
def test_corner_pool_is_the_maximum_from_each_cell_on(mode: str) -> None:
    x = random_map(1, 2, 4, 5)
    out = corner_pool(x, mode)
    for i in range(4):
        for j in range(5):
            seen = {
                "top": x[..., i:, j],
                "bottom": x[..., : i + 1, j],
                "left": x[..., i, j:],
                "right": x[..., i, : j + 1],
            }
            assert torch.equal(out[..., i, j], seen[mode].amax(-1))
    assert torch.autograd.gradcheck(lambda x: corner_pool(x, mode), x.double().requires_grad_())


def test_corner_pool_names_a_wrong_direction() -> None:
    with pytest.raises(ValueError, match="'up' is none of top, bottom, left, right"):
        corner_pool(torch.zeros(1, 1, 2, 2), "up")


@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_criss_cross_attention_sees_its_column_and_row_once(height: int, width: int, seed: int) -> None:
    query, key = random_map(1, 3, height, width, seed=seed), random_map(1, 3, height, width, seed=seed + 1)
    value = random_map(1, 2, height, width, seed=seed + 2)
    out = criss_cross_attention(query, key, value)
    for i in range(height):
        for j in range(width):
            seen = [(y, j) for y in range(height) if y != i] + [(i, x) for x in range(width)]
            scores = torch.stack([(query[0, :, i, j] * key[0, :, y, x]).sum() for y, x in seen]).softmax(0)
            want = sum(s * value[0, :, y, x] for s, (y, x) in zip(scores, seen, strict=True))
            torch.testing.assert_close(out[0, :, i, j], want, rtol=1e-4, atol=1e-5)


@given(
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    mask_size=st.tuples(*[st.integers(1, 7)] * 2),
    psa_type=st.sampled_from(TYPES),
)
def test_psa_mask_lays_windows_out(
    height: int, width: int, mask_size: tuple[int, int], psa_type: str
) -> None:
    x = random_map(2, mask_size[0] * mask_size[1], height, width)
    want = torch.zeros(2, height * width, height, width)
    for i in range(height):
        for j in range(width):
            for y in range(height):
                for x_ in range(width):
                    row, column = y - i + (mask_size[0] - 1) // 2, x_ - j + (mask_size[1] - 1) // 2
                    if 0 <= row < mask_size[0] and 0 <= column < mask_size[1]:
                        weight = x[:, row * mask_size[1] + column, i, j]
                        if psa_type == "collect":
                            want[:, y * width + x_, i, j] = weight
                        else:
                            want[:, i * width + j, y, x_] = weight
    assert torch.equal(psa_mask(x, psa_type, mask_size), want)


def test_psa_mask_gradient_and_wrong_channels() -> None:
    x = random_map(1, 9, 2, 3).double().requires_grad_()
    for psa_type in TYPES:
        assert torch.autograd.gradcheck(lambda x, kind=psa_type: psa_mask(x, kind, (3, 3)), x)
    with pytest.raises(ValueError, match="9 channels for windows"):
        psa_mask(x, "collect", (3, 5))


@given(
    size=st.tuples(*[st.integers(3, 7)] * 2),
    kernel=st.integers(1, 3),
    padding=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_masked_convolution_is_zero_elsewhere(
    size: tuple[int, int], kernel: int, padding: int, seed: int
) -> None:
    x, weight, bias = random_map(1, 2, *size, seed=seed), random_map(3, 2, kernel, kernel), random_map(3)
    out = [side + 2 * padding - kernel + 1 for side in size]
    mask = (random_map(1, *out, seed=seed + 1) > 0).float()
    want = masked_conv2d_reference(x, mask, weight, bias, padding)
    torch.testing.assert_close(masked_conv2d(x, mask, weight, bias, padding), want, rtol=1e-4, atol=1e-5)


def test_masked_convolution_of_nothing_and_its_gradient() -> None:
    x, weight, bias = (
        t.double().requires_grad_() for t in (random_map(1, 2, 4, 4), random_map(3, 2, 3, 3), random_map(3))
    )
    assert masked_conv2d(x, torch.zeros(1, 4, 4), weight, bias, 1).abs().sum() == 0
    mask = (random_map(1, 4, 4) > 0).double()
    assert torch.autograd.gradcheck(lambda x, w, b: masked_conv2d(x, mask, w, b, 1), (x, weight, bias))


def test_batch_normalisation_in_pieces_is_batch_normalisation() -> None:
    x = random_map(3, 4, 5).requires_grad_()
    weight, bias, grad = random_map(4, seed=1), random_map(4, seed=2), random_map(3, 4, 5, seed=3)
    want = F.batch_norm(x, None, None, weight, bias, training=True)
    normalised, deviation = sync_bn.normalise(x, sync_bn.mean(x), sync_bn.variance(x, sync_bn.mean(x)), 1e-5)
    torch.testing.assert_close(normalised * weight[:, None] + bias[:, None], want)
    grad_weight, grad_bias = sync_bn.parameter_gradients(grad, normalised)
    got = sync_bn.input_gradient(grad, weight, grad_weight, grad_bias, normalised, deviation)
    torch.testing.assert_close(got, torch.autograd.grad(want, x, grad)[0], rtol=1e-4, atol=1e-5)
