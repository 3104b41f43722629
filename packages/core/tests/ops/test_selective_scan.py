"""The selective scan: every implementation against the plain loop."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops.selective_scan import selective_scan, selective_scan_reference, selective_scan_step

Arguments = list[Tensor | None]


def arguments(
    batch: int = 2,
    channels: int = 6,
    states: int = 3,
    length: int = 70,
    *,
    B: str = "variable",
    C: str = "variable",
    optional: tuple[bool, bool, bool] = (True, True, True),
    dtype: torch.dtype = torch.float64,
    groups: int = 2,
) -> Arguments:
    """Random u, delta, A, B, C, and D, z, delta_bias as `optional` asks for them, all wanting gradients."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, requires_grad=True)

    forms = {
        "variable": (batch, states, length),
        "grouped": (batch, groups, states, length),
        "one group": (batch, 1, states, length),
        "fixed": (channels, states),
    }
    extra = ((channels,), (batch, channels, length), (channels,))
    return [
        random(batch, channels, length),
        random(batch, channels, length),
        (-2 * torch.rand(channels, states, dtype=dtype)).requires_grad_(),
        random(*forms[B]),
        random(*forms[C]),
        *(random(*shape) if wanted else None for wanted, shape in zip(optional, extra, strict=True)),
    ]


def worst(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert got.shape == want.shape
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))


def assert_same(tensors: Arguments, soft: bool, tolerance: float) -> None:
    """Output, last state and every gradient are those of the loop in float64."""
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    out, state = selective_scan(*tensors, soft, return_last_state=True)
    want, want_state = selective_scan_reference(*exact, soft)
    dout = torch.randn_like(want)
    present = [i for i, t in enumerate(tensors) if t is not None]
    got = torch.autograd.grad((out * dout.to(out.dtype)).sum(), [tensors[i] for i in present])
    wanted = torch.autograd.grad((want * dout).sum(), [exact[i] for i in present])
    assert worst(out, want) <= tolerance
    assert worst(state, want_state) <= tolerance
    for i, a, b in zip(present, got, wanted, strict=True):
        assert a.dtype == tensors[i].dtype
        assert worst(a, b) <= tolerance, f"gradient {i}"


@pytest.fixture(params=["numba", "chunked"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPSIN_NUMBA", "1" if request.param == "numba" else "0")
    torch.manual_seed(0)
    yield request.param


@pytest.mark.parametrize(
    "form", list(itertools.product(("variable", "grouped", "fixed"), repeat=2)), ids="/".join
)
def test_every_combination_agrees_with_the_loop(implementation: str, form: tuple[str, str]) -> None:
    for *optional, soft in itertools.product((False, True), repeat=4):
        tensors = arguments(B=form[0], C=form[1], optional=tuple(optional))
        if not soft:  # a raw step may be negative, but then the state grows without bound
            tensors[1] = (0.1 * tensors[1].detach().abs()).requires_grad_()
        assert_same(tensors, soft, 1e-11)


def test_float32_agrees_with_the_float64_loop_to_1e_5(implementation: str) -> None:
    assert_same(arguments(1, 40, 16, 300, dtype=torch.float32), True, 1e-5)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    group=st.integers(1, 19),
    groups=st.integers(1, 3),
    states=st.integers(1, 17),
    length=st.sampled_from([1, 2, 63, 64, 65, 90]),
    forms=st.tuples(*[st.sampled_from(["variable", "grouped", "one group", "fixed"])] * 2),
)
def test_any_shape_agrees_with_the_loop(
    batch: int, group: int, groups: int, states: int, length: int, forms: tuple[str, str]
) -> None:
    torch.manual_seed(length)
    assert_same(
        arguments(batch, group * groups, states, length, B=forms[0], C=forms[1], groups=groups), True, 1e-10
    )


def test_gradcheck_in_float64(implementation: str) -> None:
    for form in ("variable", "grouped", "fixed"):
        tensors = arguments(1, 2, 2, 5, B=form, C=form)
        assert torch.autograd.gradcheck(lambda *t: selective_scan(*t, True), tensors)


def test_strided_views_give_what_their_copies_give(implementation: str) -> None:
    last = torch.randn(2, 50, 64)
    u, z = (half.transpose(1, 2) for half in last.chunk(2, dim=2))
    delta = torch.randn(2, 32, 100)[:, :, ::2]
    A, B, C = (
        -torch.rand(16, 32).t(),
        torch.randn(2, 50, 16).transpose(1, 2),
        torch.randn(1, 16, 50).expand(2, -1, -1),
    )
    copies = [t.contiguous() for t in (u, delta, A, B, C)]
    got = selective_scan(u, delta, A, B, C, None, z, delta_softplus=True)
    want = selective_scan(*copies, None, z.contiguous(), delta_softplus=True)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_empty_sequences_and_batches(implementation: str) -> None:
    for batch, length in ((0, 5), (2, 0)):
        tensors = arguments(batch, 6, 3, length, dtype=torch.float32)
        out, state = selective_scan(*tensors, True, return_last_state=True)
        out.sum().backward()
        assert out.shape == (batch, 6, length)
        assert state.shape == (batch, 6, 3)
        assert float(state.abs().sum()) == 0
        assert float(tensors[2].grad.abs().sum()) == 0


def test_output_depends_on_the_past_alone(implementation: str) -> None:
    tensors = arguments(1, 5, 3, 90, dtype=torch.float32)
    before = selective_scan(*tensors, True)
    with torch.no_grad():
        tensors[0][:, :, 70] += 1
    after = selective_scan(*tensors, True)
    assert torch.equal(before[..., :70], after[..., :70])
    assert ((before - after)[..., 70].abs() > 0).all()


def test_nan_spreads_forward_in_its_channel_alone(implementation: str) -> None:
    tensors = arguments(1, 20, 3, 90, dtype=torch.float32)
    with torch.no_grad():
        tensors[1][0, 4, 70] = torch.nan
    out = selective_scan(*tensors, True)
    assert out[0, 4, 70:].isnan().all()
    assert int(out.isnan().sum()) == 20


def test_extreme_steps_stay_finite(implementation: str) -> None:
    tensors = arguments(1, 4, 3, 20, dtype=torch.float32)
    with torch.no_grad():
        tensors[1].copy_(torch.linspace(-200, 200, 80).view(1, 4, 20))
    assert_same(tensors, True, 1e-5)


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    tensors = arguments(2, 70, 4, 100, dtype=torch.float32)
    present = [t for t in tensors if t is not None]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            out = selective_scan(*tensors, True)
            results.append((out, *torch.autograd.grad(out.square().sum(), present)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_at_the_end(implementation: str, dtype: torch.dtype) -> None:
    tensors = [None if t is None else t.detach().to(dtype) for t in arguments(1, 20, 4, 100)]
    out = selective_scan(*tensors, True)
    want, _ = selective_scan_reference(*[None if t is None else t.float() for t in tensors], True)
    assert out.dtype == dtype
    assert worst(out, want) <= torch.finfo(dtype).eps


def test_steps_of_a_stream_give_the_whole_scan() -> None:
    torch.manual_seed(0)
    u, delta, A, B, C, D, z, bias = arguments(2, 6, 3, 20, B="grouped")
    want, want_state = selective_scan(u, delta, A, B, C, D, z, bias, True, return_last_state=True)
    state, outs = torch.zeros(2, 6, 3, dtype=u.dtype), []
    for piece in (slice(0, 1), slice(1, 2), slice(2, 9), slice(9, 20)):
        sequences = (u[..., piece], delta[..., piece], A, B[..., piece], C[..., piece], D, z[..., piece])
        out, state = selective_scan_step(state, *sequences, bias, True)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 2), want)
    torch.testing.assert_close(state, want_state)


def test_forward_memory_is_linear_in_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """No allocation of the forward or backward pass exceeds u's size by more than a constant, whatever N."""
    tensors = arguments(1, 64, 32, 4096, dtype=torch.float32)
    largest = _largest_allocation(tensors)
    assert largest <= 2 * tensors[0].nbytes  # an (L, D, N) tensor would be 32 times u


def _largest_allocation(tensors: Arguments) -> int:
    from torch.profiler import ProfilerActivity, profile

    selective_scan(*tensors, True).sum().backward()  # compiles
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        selective_scan(*tensors, True).sum().backward()
    sizes = [event.nbytes() for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert sizes
    return max(sizes)


def test_registration_passes_opcheck() -> None:
    from opsin.core.ops.selective_scan import _scan

    torch.manual_seed(0)
    full = arguments(2, 6, 3, 70, B="grouped", dtype=torch.float32)
    torch.library.opcheck(_scan, (*full, True, True))
    plain = [
        None if t is None else t.detach() for t in arguments(1, 5, 2, 9, C="fixed", optional=(False,) * 3)
    ]
    torch.library.opcheck(_scan, (*plain, False, False))


def test_compiles_to_one_graph_with_gradients() -> None:
    torch.manual_seed(0)
    tensors = arguments(2, 6, 3, 70, dtype=torch.float32)
    compiled = torch.compile(
        lambda *t: selective_scan(*t, True).square(), fullgraph=True, backend="aot_eager"
    )
    present = [t for t in tensors if t is not None]
    got = torch.autograd.grad(compiled(*tensors).sum(), present)
    want = torch.autograd.grad(selective_scan(*tensors, True).square().sum(), present)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_last_state_carries_no_gradient() -> None:
    out, state = selective_scan(*arguments(), True, return_last_state=True)
    assert out.requires_grad
    assert not state.requires_grad


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (1, (2, 6, 69), "delta is"),
        (2, (5, 3), "A is"),
        (3, (2, 4, 70), "B is"),
        (3, (2, 4, 3, 70), "4 groups"),
        (4, (6, 2), "C is"),
        (5, (7,), "D is"),
        (6, (2, 6), "z is"),
    ],
)
def test_shapes_that_do_not_fit_are_named(place: int, shape: tuple[int, ...], message: str) -> None:
    tensors = arguments()
    tensors[place] = torch.randn(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        selective_scan(*tensors)


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
    return result.stdout


def test_importing_costs_neither_numba_nor_triton() -> None:
    program = (
        "import sys, torch; before = set(sys.modules); import opsin.core.ops.selective_scan;"
        "print({'numba', 'triton'} & (set(sys.modules) - before))"
    )
    assert run_python(program).strip() == "set()"


def test_works_where_numba_is_turned_off_and_absent() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from opsin.core.ops.selective_scan import selective_scan\n"
        "x = torch.ones(1, 2, 3); y = selective_scan(x, x, -torch.ones(2, 1), x[:, :1], x[:, :1])\n"
        "print(y[0, 0, 0].item())"
    )
    assert run_python(program, OPSIN_NUMBA="0").strip() == "1.0"


TRITON = """
import torch
from opsin.core.ops.selective_scan import selective_scan_reference, triton
from opsin.core.ops.selective_scan.arguments import Scan

torch.manual_seed(0)
r = lambda *shape: torch.randn(shape, dtype=torch.float64, requires_grad=True)
D, N, L = 6, 3, 67
A = (-torch.rand(D, N, dtype=torch.float64)).requires_grad_()
steps = torch.rand(1, D, L, dtype=torch.float64).requires_grad_()
for tensors, soft in (
    ([r(1, D, L), r(1, D, L), A, r(1, 2, N, L), r(1, N, L), r(D), r(1, D, L), r(D)], True),
    ([r(1, D, L), steps, A, r(1, N, L), r(D, N), None, None, None], False),
    ([r(1, D, 3), r(1, D, 3), A, r(D, N), r(1, 2, N, 3), r(D), None, r(D)], True),
):
    scan = Scan(*[None if t is None else t.detach() for t in tensors], soft)
    out, state, kept = triton.forward(scan, True)
    want, want_state = selective_scan_reference(*tensors, soft)
    dout = torch.randn_like(want)
    present = [t for t in tensors if t is not None]
    wanted = torch.autograd.grad((want * dout).sum(), present)
    got = [g for g, t in zip(triton.backward(scan, dout, kept), tensors) if t is not None]
    for a, b in zip((out, state, *got), (want, want_state, *wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
print("same")
"""


def test_triton_kernels_agree_with_the_loop_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    assert run_python(TRITON, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.parametrize("fixed", [False, True])
def test_triton_kernels_compile_for_a_gpu(fixed: bool) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from opsin.core.ops.selective_scan import triton as scan

    switches = {"SOFT": not fixed, "GATED": not fixed, "B_FIXED": fixed, "C_FIXED": fixed}
    constants = {**switches, "CHUNK": 64, "BLOCK": 32, "STATES": 16}
    sizes = dict.fromkeys(("length", "channels", "states", "groups", "chunks"), "i32")
    for kernel, values in (
        (scan._forward_kernel, {**constants, "SAVE": True}),
        (scan._backward_kernel, constants),
    ):
        kinds = {
            name: "constexpr" if name in values else sizes.get(name, "*fp32") for name in kernel.arg_names
        }
        places = {(kernel.arg_names.index(name),): value for name, value in values.items()}
        source = ASTSource(fn=kernel, signature=kinds, constexprs=places)
        assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm
