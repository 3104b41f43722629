import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops.ms_deform_attn import (
    MultiScaleDeformableAttention,
    ms_deform_attn,
    ms_deform_attn_reference,
)


def make(
    seed: int, sizes: list[tuple[int, int]], batch: int, queries: int, heads: int, width: int, points: int
) -> list[Tensor]:
    """value, shapes, places (some outside 0..1) and weight."""
    g = torch.Generator().manual_seed(seed)
    shapes = torch.tensor(sizes)
    value = torch.randn(batch, int(shapes.prod(1).sum()), heads, width, generator=g)
    places = torch.rand(batch, queries, heads, len(sizes), points, 2, generator=g) * 1.6 - 0.3
    weight = torch.rand(batch, queries, heads, len(sizes), points, generator=g)
    return [value, shapes, places, weight]


@given(
    seed=st.integers(0, 999),
    sizes=st.lists(st.tuples(*[st.integers(1, 9)] * 2), min_size=1, max_size=3),
    batch=st.integers(1, 2),
    queries=st.integers(0, 7),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 5, 16]),
    points=st.integers(1, 4),
)
def test_output_is_that_of_the_definition(
    seed: int, sizes: list[tuple[int, int]], batch: int, queries: int, heads: int, width: int, points: int
) -> None:
    value, shapes, places, weight = make(seed, sizes, batch, queries, heads, width, points)
    out = ms_deform_attn(value, shapes, places, weight)
    assert out.shape == (batch, queries, heads * width)
    if queries:  # grid_sample, which defines it, refuses an empty grid
        want = ms_deform_attn_reference(value.double(), shapes, places.double(), weight.double())
        torch.testing.assert_close(out, want.float(), rtol=1e-4, atol=1e-4)


def test_gradients(backend: str) -> None:
    value, shapes, places, weight = make(1, [(3, 4), (2, 2)], 2, 3, 2, 3, 2)
    leaves = [t.double().requires_grad_() for t in (value, places, weight)]
    assert torch.autograd.gradcheck(lambda v, p, w: ms_deform_attn(v, shapes, p, w), leaves)


def test_strides_and_threads_change_nothing() -> None:
    value, shapes, places, weight = make(2, [(6, 5)], 2, 9, 4, 8, 3)
    want = ms_deform_attn(value, shapes, places, weight)
    strided = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(ms_deform_attn(strided, shapes, places, weight), want)
    finally:
        torch.set_num_threads(threads)


def test_half_precision_values_keep_precise_places(backend: str) -> None:
    value, shapes, places, weight = make(3, [(50, 60)], 1, 20, 2, 8, 4)
    want = ms_deform_attn(value, shapes, places, weight)
    half = ms_deform_attn(value.bfloat16(), shapes, places, weight)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), want, rtol=0.03, atol=0.03)


def test_places_that_are_nan_or_infinite_count_as_outside(backend: str) -> None:
    value, shapes, places, weight = make(4, [(4, 4)], 1, 2, 1, 4, 1)
    places[0, 0, 0, 0, 0] = torch.tensor([float("nan"), 0.5])
    places[0, 1, 0, 0, 0] = torch.tensor([0.5, torch.inf])
    assert ms_deform_attn(value, shapes, places, weight).abs().sum() == 0


def test_levels_that_do_not_add_up_are_named(backend: str) -> None:
    value, _, places, weight = make(5, [(4, 4)], 1, 2, 1, 4, 1)
    with pytest.raises(ValueError, match=r"\[\[4, 5\]\] do not add up to 16"):
        ms_deform_attn(value, torch.tensor([[4, 5]]), places, weight)


def test_layer_forms_agree_and_padding_does_not_matter() -> None:
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(16, 4, 2, 3, dropout=0.0, batch_first=True)
    swapped = MultiScaleDeformableAttention(16, 4, 2, 3, dropout=0.0)
    swapped.load_state_dict(layer.state_dict())
    shapes, query, value = torch.tensor([[3, 4], [2, 2]]), torch.randn(2, 5, 16), torch.randn(2, 16, 16)
    references = torch.rand(2, 5, 2, 4)
    out = layer(query, value, references, shapes)
    torch.testing.assert_close(
        swapped(query.transpose(0, 1), value.transpose(0, 1), references, shapes).transpose(0, 1), out
    )
    padding = torch.arange(16).expand(2, 16) >= 12  # the second level
    changed = value.clone()
    changed[:, 12:] = 9
    assert torch.equal(
        layer(query, value, references, shapes, key_padding_mask=padding),
        layer(query, changed, references, shapes, key_padding_mask=padding),
    )


def test_layer_starts_with_points_on_a_circle() -> None:
    layer = MultiScaleDeformableAttention(8, 4, 1, 2)
    directions = layer.sampling_offsets.bias.detach().view(4, 1, 2, 2)
    torch.testing.assert_close(
        directions[:, 0, 0], torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(directions[:, 0, 1], 2 * directions[:, 0, 0])
    with pytest.raises(ValueError, match="does not divide"):
        MultiScaleDeformableAttention(10, 4)
