"""Neighborhood attention: windows against NATTEN's formulas, tiles against the gathered definition."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from opsin.core.ops.neighborhood_attention import (
    blocked,
    neighborhood_attention,
    neighborhood_attention_reference,
)
from opsin.core.ops.neighborhood_attention.published import run
from opsin.core.ops.neighborhood_attention.windows import neighbours
from opsin.core.parity import Case

CASES = sorted((Path(__file__).parents[1] / "parity" / "medvitv2").glob("na*.json"))


def maps(
    sizes: tuple[int, ...],
    kernels: tuple[int, ...],
    batch: int = 2,
    heads: int = 3,
    width: int = 4,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """Random q, k, v and, with `bias`, a table; all want gradients."""
    shape = (batch, heads, *sizes, width)
    tensors = [torch.randn(shape, dtype=dtype) for _ in range(3)]
    if bias:
        tensors.append(torch.randn(heads, *(2 * kernel - 1 for kernel in kernels), dtype=dtype))
    return [t.requires_grad_() for t in tensors]


def attend(
    op: Callable[..., Tensor], tensors: list[Tensor], kernels: tuple[int, ...], dilations: tuple[int, ...]
) -> Tensor:
    q, k, v, *table = tensors
    return op(q, k, v, kernels, dilations, table[0] if table else None)


def assert_same(tensors: list[Tensor], kernels: tuple[int, ...], dilations: tuple[int, ...]) -> None:
    """Output and every gradient are those of the definition."""
    out = attend(neighborhood_attention, tensors, kernels, dilations)
    want = attend(neighborhood_attention_reference, tensors, kernels, dilations)
    dout = torch.randn_like(want)
    got, wanted = (torch.autograd.grad(x, tensors, dout) for x in (out, want))
    for a, b in zip((out, *got), (want, *wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case_matches_the_published_numbers(case: Path) -> None:
    loaded = Case.load(case)
    assert loaded.compare(run(loaded)) < 1e-5


def natten_start(position: int, length: int, kernel: int, dilation: int) -> int:
    """The first position of a window, in the closed form that NATTEN's kernels use."""
    radius = kernel // 2
    if dilation == 1:
        return max(position - radius, 0) + min(length - position - radius - 1, 0) * (
            position + radius >= length
        )
    if position - radius * dilation < 0:
        return position % dilation
    if position + radius * dilation < length:
        return position - radius * dilation
    whole, phase = length // dilation * dilation, position % dilation
    rest = length - whole
    return (
        length - rest + phase - 2 * radius * dilation if phase < rest else whole + phase - kernel * dilation
    )


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_windows_are_nattens(kernel: int, dilation: int) -> None:
    for length in range(kernel * dilation, kernel * dilation + 2 * dilation + 9):
        keys, entries = neighbours(length, kernel, dilation, torch.device("cpu"))
        start = torch.tensor([natten_start(i, length, kernel, dilation) for i in range(length)])
        assert torch.equal(keys, start[:, None] + torch.arange(kernel) * dilation)
        assert torch.equal((entries - kernel + 1) * dilation, keys - torch.arange(length)[:, None])
        assert keys.max() < length
        assert entries.max() < 2 * kernel - 1


@given(data=st.data(), axes=st.integers(1, 3), bias=st.booleans(), batch=st.integers(0, 2))
def test_any_shape_agrees_with_the_definition(data: st.DataObject, axes: int, bias: bool, batch: int) -> None:
    def one_an_axis(strategy: st.SearchStrategy[int]) -> tuple[int, ...]:
        return data.draw(st.tuples(*[strategy] * axes))

    kernels = one_an_axis(st.sampled_from([1, 3, 5] if axes < 3 else [1, 3]))
    dilations = one_an_axis(st.integers(1, 3 if axes < 3 else 2))
    extra = one_an_axis(st.integers(0, {1: 150, 2: 12, 3: 5}[axes]))
    sizes = tuple(k * d + e for k, d, e in zip(kernels, dilations, extra, strict=True))
    torch.manual_seed(sum(sizes))
    assert_same(maps(sizes, kernels, batch, 2, 3, bias), kernels, dilations)


def test_maps_of_one_position() -> None:
    for axes in (1, 2, 3):
        tensors = maps((1,) * axes, (1,) * axes)
        assert_same(tensors, (1,) * axes, (1,) * axes)
        torch.testing.assert_close(neighborhood_attention(*tensors[:3], 1), tensors[2])


def test_window_as_large_as_the_map_is_full_attention_with_relative_bias() -> None:
    torch.manual_seed(0)
    q, k, v, rpb = maps((5, 5), (5, 5))
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    y, x = (places[None] - places[:, None] + 4).unbind(-1)  # (query, key)
    want = F.scaled_dot_product_attention(*(t.flatten(2, 3) for t in (q, k, v)), attn_mask=rpb[:, y, x])
    torch.testing.assert_close(neighborhood_attention(q, k, v, 5, 1, rpb).flatten(2, 3), want)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 2), (3, 4)])
def test_every_query_sees_as_many_keys_as_its_window_has(kernel: int, dilation: int) -> None:
    height, width = kernel * dilation + 1, kernel * dilation + 6
    positions = height * width
    q = torch.zeros(1, 1, height, width, positions)
    v = torch.eye(positions).view(1, 1, height, width, positions)
    weights = neighborhood_attention(q, q, v, kernel, dilation).view(positions, positions)
    seen = (weights > 0).sum(1)
    assert (seen == kernel**2).all()
    torch.testing.assert_close(weights[weights > 0], torch.full((positions * kernel**2,), kernel**-2.0))


def test_dilated_attention_is_attention_within_each_class() -> None:
    torch.manual_seed(0)
    q, k, v, rpb = maps((11, 13), (3, 3))
    out = neighborhood_attention(q, k, v, 3, (2, 3), rpb)
    for y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        one = (slice(None), slice(None), slice(y, None, 2), slice(x, None, 3))
        torch.testing.assert_close(out[one], neighborhood_attention(q[one], k[one], v[one], 3, 1, rpb))


def test_shifted_maps_give_shifted_outputs_away_from_the_border() -> None:
    torch.manual_seed(0)
    q, k, v, rpb = maps((20, 20), (5, 5))
    moved = neighborhood_attention(*(t.roll((1, 2), (2, 3)) for t in (q, k, v)), 5, 1, rpb)
    still = neighborhood_attention(q, k, v, 5, 1, rpb).roll((1, 2), (2, 3))
    torch.testing.assert_close(moved[:, :, 5:-5, 5:-5], still[:, :, 5:-5, 5:-5])


def test_gradcheck_in_float64() -> None:
    torch.manual_seed(0)
    for sizes, kernels, dilations in (((5,), (3,), (1,)), ((3, 6), (3, 3), (1, 2))):
        tensors = maps(sizes, kernels, 1, 1, 1)
        q, k, v, rpb = tensors
        assert torch.autograd.gradcheck(
            lambda *t, sizes=kernels, steps=dilations: neighborhood_attention(
                *t[:3], sizes, steps, t[3], 0.7
            ),
            (q, k, v, rpb),
        )


def test_strided_views_give_what_their_copies_give() -> None:
    qkv = torch.randn(2, 9, 20, 3, 2, 8)  # heads last, as a projection leaves them
    views = [t.permute(0, 3, 1, 2, 4)[:, :, :, ::2] for t in qkv.unbind(3)]
    assert torch.equal(
        neighborhood_attention(*views, 3, 2), neighborhood_attention(*(t.contiguous() for t in views), 3, 2)
    )


def test_fewer_heads_or_images_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tensors = maps((9, 12), (3, 3), 3, 4)
    for budget in (1, 20000):
        monkeypatch.setattr(blocked, "BUDGET", budget)
        assert_same(tensors, (3, 3), (1, 2))


def test_same_call_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    tensors = maps((10, 18), (5, 5), dtype=torch.float32)
    results = []
    for _ in range(2):
        out = attend(neighborhood_attention, tensors, (5, 5), (2, 1))
        results.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = [t.detach().to(dtype).requires_grad_() for t in maps((9, 12), (3, 3))]
    single = [t.detach().float().requires_grad_() for t in tensors]
    out, want = (attend(neighborhood_attention, x, (3, 3), (1, 2)) for x in (tensors, single))
    assert out.dtype == dtype
    assert torch.equal(out, want.to(dtype))
    dout = torch.randn_like(out)
    got = torch.autograd.grad(out, tensors, dout)
    wanted = torch.autograd.grad(want, single, dout.float())
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b.to(dtype))


def test_autocast_does_not_reach_inside() -> None:
    torch.manual_seed(0)
    q, k, v, rpb = maps((9, 12), (3, 3), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = neighborhood_attention(q, k, v, 3, 1, rpb)
        mixed = neighborhood_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 3, 1, rpb)
        grad = torch.autograd.grad(out.sum(), q)[0]
    assert torch.equal(out, neighborhood_attention(q, k, v, 3, 1, rpb))
    assert torch.equal(grad, torch.autograd.grad(neighborhood_attention(q, k, v, 3, 1, rpb).sum(), q)[0])
    assert mixed.dtype == torch.bfloat16


@pytest.mark.parametrize("place", [1, 2])
def test_every_window_that_holds_a_nan_gives_nan(place: int) -> None:
    tensors = [t.detach() for t in maps((24, 24), (3, 3), 1, 1, bias=False)]
    tensors[place][0, 0, 5, 5] = torch.nan
    bad = neighborhood_attention(*tensors, 3).isnan().all(-1)[0, 0]
    assert bad[4:7, 4:7].all()
    assert not bad[8:].any()  # but the tile's other queries may be NaN as well


def peak(work: Callable[[], object]) -> int:
    """The most bytes that tensors made in `work` hold at one time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        work()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_memory_is_a_fifth_of_gathering_at_most() -> None:
    """The map of the issue, 56 x 56 with windows of 7 x 7, forward and forward with backward."""
    tensors = maps((56, 56), (7, 7), 1, 2, 32, dtype=torch.float32)

    def step(op: Callable[..., Tensor]) -> None:
        torch.autograd.grad(attend(op, tensors, (7, 7), (1, 1)).sum(), tensors)

    def look(op: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            attend(op, tensors, (7, 7), (1, 1))

    for work in (look, step):
        ours = peak(lambda work=work: work(neighborhood_attention))
        assert 0 < 5 * ours <= peak(lambda work=work: work(neighborhood_attention_reference))


def test_registration_passes_opcheck() -> None:
    from opsin.core.ops.neighborhood_attention import _attend, _attend_backward

    torch.manual_seed(0)
    tensors = maps((6, 7), (3, 3), dtype=torch.float32)
    plain = [t.detach() for t in tensors]
    settings = ([3, 3], [2, 1], 0.5)
    torch.library.opcheck(_attend, (*tensors, *settings))
    torch.library.opcheck(_attend, (*tensors[:3], None, *settings))
    torch.library.opcheck(_attend_backward, (plain[0], *plain, *settings))


def test_compiles_to_one_graph_with_gradients() -> None:
    torch.manual_seed(0)
    tensors = maps((6, 7), (3, 3), dtype=torch.float32)

    def squared(*t: Tensor) -> Tensor:
        return attend(neighborhood_attention, list(t), (3, 3), (2, 1)).square()

    compiled = torch.compile(squared, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*tensors).sum(), tensors)
    want = torch.autograd.grad(squared(*tensors).sum(), tensors)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_exports_for_maps_of_any_size() -> None:
    class Module(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return neighborhood_attention(q, k, v, 3, 2)

    def given_maps(height: int, width: int) -> tuple[Tensor, ...]:
        return tuple(t.detach() for t in maps((height, width), (3, 3), bias=False, dtype=torch.float32))

    free = {2: torch.export.Dim("height", min=6, max=64), 3: torch.export.Dim("width", min=6, max=64)}
    program = torch.export.export(Module(), given_maps(7, 8), dynamic_shapes=(free,) * 3)
    larger = given_maps(12, 9)
    torch.testing.assert_close(program.module()(*larger), Module()(*larger))


def test_maps_smaller_than_the_window_are_refused() -> None:
    q = torch.zeros(1, 1, 7, 13, 4)
    assert neighborhood_attention(q, q, q, 7, (1, 1)).shape == q.shape
    with pytest.raises(ValueError, match=r"width 13 is too small for kernel_size 7 with dilation 2: .* 14"):
        neighborhood_attention(q, q, q, 7, (1, 2))
    with pytest.raises(ValueError, match="height 7"):
        neighborhood_attention_reference(q, q, q, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 4}, "must be odd"),
        ({"dilation": 0}, "dilation from 1"),
        ({"kernel_size": (3,)}, r"kernel_size has 1 numbers, expected 2 \(height, width\)"),
        ({"k": torch.zeros(1, 1, 7, 8, 4)}, "k is"),
        ({"rpb": torch.zeros(1, 5)}, "rpb is"),
        ({"q": torch.zeros(1, 1, 4)}, "q must be"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes: dict[str, object], message: str) -> None:
    x = torch.zeros(1, 1, 7, 7, 4)
    with pytest.raises(ValueError, match=message):
        neighborhood_attention(**{"q": x, "k": x, "v": x, "kernel_size": 3, **changes})


def run_python(program: str, **environment: str) -> str:
    """Runs a program in a fresh interpreter and gives what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


TRITON = """
import torch
from opsin.core.ops.neighborhood_attention import triton
from opsin.core.ops.neighborhood_attention.arguments import Attention
from opsin.core.ops.neighborhood_attention.reference import attend

torch.manual_seed(0)
r = lambda *shape: torch.randn(shape, dtype=torch.float64)
for sizes, kernels, dilations, biased in (
    ((7,), (3,), (2,), False),
    ((3, 7), (3, 3), (1, 2), True),
    ((2, 3, 4), (1, 3, 3), (2, 1, 1), False),
):
    tensors = [r(1, 2, *sizes, 3).requires_grad_() for _ in range(3)]
    rpb = r(2, *(2 * k - 1 for k in kernels)).requires_grad_() if biased else None
    want = attend(Attention(*tensors, rpb, kernels, dilations, 0.5))
    dout = torch.randn_like(want)
    wanted = torch.autograd.grad(want, tensors + [rpb] * biased, dout)
    given = Attention(*[None if t is None else t.detach() for t in (*tensors, rpb)], kernels, dilations, 0.5)
    got = triton.backward(given, dout)[: len(wanted)]
    for a, b in zip((triton.forward(given), *got), (want, *wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
print("same")
"""


def test_triton_kernels_agree_with_the_definition_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    assert run_python(TRITON, TRITON_INTERPRET="1", PYTHONWARNINGS="ignore") == "same"


def test_triton_kernels_compile_for_a_gpu() -> None:
    triton = pytest.importorskip("triton")
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from opsin.core.ops.neighborhood_attention import triton as kernels

    window = {"KZ": 1, "KY": 7, "KX": 7, "DZ": 1, "DY": 2, "DX": 2, "TY": 8, "TX": 8, "ROW": 16}
    constants = {**window, "BIASED": True, "WIDTH": 32, "LANES": 32, "KIND": tl.float32}
    numbers = {"scale": "fp32", **dict.fromkeys(("heads", "Z", "Y", "X"), "i32")}
    for kernel in (
        kernels._forward_kernel,
        kernels._query_kernel,
        kernels._key_kernel,
        kernels._bias_kernel,
    ):
        kinds = {
            name: "constexpr" if name in constants else numbers.get(name, "*fp32")
            for name in kernel.arg_names
        }
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=kinds, constexprs=places)
        assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm
