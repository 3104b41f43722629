"""WKV: every implementation against the definition, and the definition against the published recurrence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from opsin.core.ops.wkv import bi_wkv, bi_wkv_reference, initial_state, wkv, wkv_reference, wkv_step
from opsin.core.ops.wkv.published import run
from opsin.core.parity import Case

CASES = sorted((Path(__file__).parents[1] / "parity" / "rwkv-sam").glob("biwkv*.json"))


def arguments(
    batch: int = 2, length: int = 37, channels: int = 5, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Random w (of both signs), u, k, v that want gradients."""
    shapes = ((channels,), (channels,), (batch, length, channels), (batch, length, channels))
    w, u, k, v = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return [x.requires_grad_() for x in (0.3 * w + 0.2, u, k, v)]


def random_state(k: Tensor) -> Tensor:
    """A state as some tokens before k might leave it."""
    above, below, scale = torch.randn(3, k.shape[0], k.shape[2], dtype=k.dtype)
    return torch.stack([above, 1 + below.abs(), scale], 1)


def doubled(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in tensors]


def worst(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert got.shape == want.shape
    if not want.numel():
        return 0.0
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-9))


def assert_gradients_agree(
    out: Tensor, tensors: list[Tensor], want: Tensor, exact: list[Tensor], tolerance: float
) -> None:
    assert worst(out, want) <= tolerance
    dout = torch.randn_like(want)
    got = torch.autograd.grad(out, tensors, dout.to(out.dtype))
    wanted = torch.autograd.grad(want, exact, dout)
    for name, tensor, a, b in zip("wukv", tensors, got, wanted, strict=True):
        assert a.dtype == tensor.dtype
        assert float((a.double() - b).abs().max() if b.numel() else 0) <= tolerance * max(
            1.0, float(b.abs().max() if b.numel() else 0)
        ), f"gradient of {name}"


def assert_both_agree(tensors: list[Tensor], tolerance: float) -> None:
    """Outputs, states and gradients of both ops are those of the definition in float64."""
    exact = doubled(tensors)
    assert_gradients_agree(bi_wkv(*tensors), tensors, bi_wkv_reference(*exact), exact, tolerance)
    for state in (initial_state(exact[2]), random_state(exact[2])):
        out, after = wkv(*tensors, state.to(tensors[2].dtype))
        want, want_after = wkv_reference(*exact, state)
        assert worst(after, want_after) <= tolerance
        assert_gradients_agree(out, tensors, want, exact, tolerance)


def published_loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """RWKV-4's recurrence, token by token, and its last state."""
    a, b, o = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e38)
    outs = []
    for key, value in zip(k.unbind(1), v.unbind(1), strict=True):
        top = torch.maximum(o, u + key)
        past, own = (o - top).exp(), (u + key - top).exp()
        outs.append((past * a + own * value) / (past * b + own))
        top = torch.maximum(o - w, key)
        past, own = (o - w - top).exp(), (key - top).exp()
        a, b, o = past * a + own * value, past * b + own, top
    return torch.stack(outs, 1), torch.stack([a, b, o], 1)


def test_causal_definition_is_the_published_recurrence() -> None:
    torch.manual_seed(0)
    tensors = arguments()
    got, state = wkv_reference(*tensors, initial_state(tensors[2]))
    want, want_state = published_loop(*tensors)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(state, want_state)


def test_bidirectional_definition_is_the_formula() -> None:
    torch.manual_seed(0)
    w, u, k, v = (t.detach() for t in arguments(1, 6, 1))
    for t in range(6):
        weights = torch.stack(
            [(u + k[0, t] if i == t else k[0, i] - (abs(t - i) - 1) * w).exp() for i in range(6)]
        )
        torch.testing.assert_close(
            bi_wkv_reference(w, u, k, v)[0, t], (weights * v[0]).sum(0) / weights.sum(0)
        )


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case_matches_the_published_numbers(backend: str, case: Path) -> None:
    loaded = Case.load(case)
    assert loaded.compare(run(loaded)) < 1e-5


@given(
    batch=st.integers(0, 3),
    length=st.sampled_from([0, 1, 2, 15, 16, 17, 33, 50]),
    channels=st.sampled_from([1, 3, 16, 17, 35]),
    numba=st.booleans(),
)
def test_any_shape_agrees_with_the_definition(batch: int, length: int, channels: int, numba: bool) -> None:
    torch.manual_seed(length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPSIN_NUMBA", str(int(numba)))
        assert_both_agree(arguments(batch, length, channels), 1e-10)


def test_float32_agrees_with_float64_to_1e_5(backend: str) -> None:
    torch.manual_seed(0)
    assert_both_agree(arguments(1, 120, 18, dtype=torch.float32), 1e-5)


@pytest.mark.parametrize("decay", [0.0005, 0.02, 1.0, -0.01])
def test_rounding_does_not_add_up_over_long_sequences(decay: float) -> None:
    torch.manual_seed(0)
    w, u, k, v = arguments(1, 2048, 2, torch.float32)
    w = torch.full_like(w, decay)
    assert worst(bi_wkv(w, u, k, v), bi_wkv_reference(*doubled([w, u, k, v]))) <= 1e-5


def test_keys_of_any_size_neither_overflow_nor_vanish(backend: str) -> None:
    torch.manual_seed(0)
    w, u, k, v = arguments(1, 40, 16, torch.float32)
    with torch.no_grad():
        k.copy_(torch.linspace(-80, 80, 40 * 16)[torch.randperm(40 * 16)].view_as(k))
    assert_both_agree([w, u, k, v], 1e-4)
    far = (1000 * k).detach()
    assert bi_wkv(w, u, far, v).isfinite().all()
    assert wkv(w, u, far, v)[0].isfinite().all()


def test_gradcheck_in_float64(backend: str) -> None:
    torch.manual_seed(0)
    tensors = arguments(2, 5, 2)
    state = random_state(tensors[2].detach())
    assert torch.autograd.gradcheck(bi_wkv, tensors)
    assert torch.autograd.gradcheck(lambda *t: wkv(*t, state)[0], tensors)


def test_strided_views_give_what_their_copies_give(backend: str) -> None:
    w, u = torch.rand(32)[::2], torch.randn(1).expand(16)
    k = torch.randn(2, 16, 30).transpose(1, 2)
    v = torch.randn(2, 60, 16)[:, ::2]
    copies = [t.contiguous() for t in (w, u, k, v)]
    assert torch.equal(bi_wkv(w, u, k, v), bi_wkv(*copies))
    assert torch.equal(wkv(w, u, k, v)[0], wkv(*copies)[0])


def test_causal_output_depends_on_the_past_alone(backend: str) -> None:
    w, u, k, v = arguments(1, 40, 5, torch.float32)
    before = wkv(w, u, k, v)[0]
    with torch.no_grad():
        v[:, 25] += 1
    after = wkv(w, u, k, v)[0]
    assert torch.equal(before[:, :25], after[:, :25])
    assert ((before - after)[:, 25:].abs() > 0).all()


def test_reversed_tokens_give_reversed_outputs(backend: str) -> None:
    w, u, k, v = arguments()
    torch.testing.assert_close(bi_wkv(w, u, k.flip(1), v.flip(1)), bi_wkv(w, u, k, v).flip(1))


def test_equal_values_stay_as_they_are(backend: str) -> None:
    w, u, k, v = arguments()
    torch.testing.assert_close(bi_wkv(w, u, k, torch.full_like(v, 3.0)), torch.full_like(v, 3.0))


def test_strong_decay_leaves_neighbours_alone(backend: str) -> None:
    _, u, k, v = arguments(1, 9, 4)
    weight = k.exp()
    above, below = torch.zeros_like(v), torch.zeros_like(v)
    for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        above[:, here] += (weight * v)[:, there]
        below[:, here] += weight[:, there]
    own = (u + k).exp()
    want = (above + own * v) / (below + own)
    torch.testing.assert_close(bi_wkv(torch.full((4,), 1e4, dtype=v.dtype), u, k, v), want)


def test_nan_stays_in_its_channel(backend: str) -> None:
    w, u, k, v = (t.detach() for t in arguments(1, 40, 20, torch.float32))
    k[0, 25, 4] = torch.nan
    causal, both = wkv(w, u, k, v)[0], bi_wkv(w, u, k, v)
    assert causal[0, 25:, 4].isnan().all()
    assert int(causal.isnan().sum()) == 15
    assert both[0, :, 4].isnan().all()
    assert int(both.isnan().sum()) == 40


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    tensors = arguments(2, 40, 70, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            outs = bi_wkv(*tensors), wkv(*tensors)[0]
            grads = (g for out in outs for g in torch.autograd.grad(out.square().sum(), tensors))
            results.append((*outs, *grads))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_at_the_end(backend: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    w, u, k, v = (t.detach() for t in arguments(1, 60, 20, torch.float32))
    k, v = k.to(dtype), v.to(dtype)
    pairs = (
        (bi_wkv(w, u, k, v), bi_wkv(w, u, k.float(), v.float())),
        (wkv(w, u, k, v)[0], wkv(w, u, k.float(), v.float())[0]),
    )
    for out, want in pairs:
        assert out.dtype == dtype
        assert torch.equal(out, want.to(dtype))


def test_autocast_layers_train_with_single_precision_decays(backend: str) -> None:
    torch.manual_seed(0)
    w, u, k, v = arguments(1, 20, 8, torch.float32)
    layer = nn.Linear(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = bi_wkv(w, u, layer(k), layer(v))
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert w.grad is not None and w.grad.dtype == torch.float32
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


def test_pieces_of_a_stream_give_the_whole(backend: str) -> None:
    torch.manual_seed(0)
    w, u, k, v = (t.detach() for t in arguments(2, 20, 3))
    want, want_state = wkv(w, u, k, v)
    out, state = wkv(w, u, k[:, :9], v[:, :9])
    outs = [out]
    for t in (9, 10):
        out, state = wkv_step(w, u, k[:, t], v[:, t], state)
        outs.append(out[:, None])
    out, state = wkv(w, u, k[:, 11:], v[:, 11:], state)
    torch.testing.assert_close(torch.cat([*outs, out], 1), want)
    torch.testing.assert_close(state, want_state)


def test_state_carries_no_gradient_and_is_not_written_to(backend: str) -> None:
    tensors = arguments()
    given_state = random_state(tensors[2].detach()).requires_grad_()
    kept = given_state.detach().clone()
    out, after = wkv(*tensors, given_state)
    out.sum().backward()
    assert not after.requires_grad
    assert given_state.grad is None
    assert torch.equal(given_state.detach(), kept)


def test_nothing_of_the_square_of_the_length_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.profiler import ProfilerActivity, profile

    monkeypatch.setenv("OPSIN_NUMBA", "0")
    tensors = arguments(1, 512, 4, torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        bi_wkv(*tensors).sum().backward()
    sizes = [event.nbytes() for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 0 < max(sizes) <= 2 * tensors[2].nbytes  # pairs of tokens would be 512 times k


def test_registration_passes_opcheck(backend: str) -> None:
    from opsin.core.ops.wkv import _bi_wkv, _bi_wkv_backward, _wkv, _wkv_backward

    torch.manual_seed(0)
    tensors = arguments(2, 18, 5, torch.float32)
    plain = [t.detach() for t in tensors]
    state = random_state(plain[2])
    torch.library.opcheck(_bi_wkv, tensors)
    torch.library.opcheck(_wkv, (*tensors, state))
    torch.library.opcheck(_bi_wkv_backward, (*plain, plain[3]))
    torch.library.opcheck(_wkv_backward, (*plain, state, plain[3]))


def test_compiles_to_one_graph_with_gradients() -> None:
    torch.manual_seed(0)
    tensors = arguments(2, 18, 5, torch.float32)

    def mixed(*t: Tensor) -> Tensor:
        return (bi_wkv(*t) * wkv(*t)[0]).square()

    compiled = torch.compile(mixed, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*tensors).sum(), tensors)
    want = torch.autograd.grad(mixed(*tensors).sum(), tensors)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_exports() -> None:
    class Module(nn.Module):
        def forward(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return bi_wkv(w, u, k, v), *wkv(w, u, k, v)

    given = tuple(t.detach() for t in arguments(1, 9, 3, torch.float32))
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    shapes = {"w": None, "u": None, "k": {1: tokens}, "v": {1: tokens}}
    program = torch.export.export(Module(), given, dynamic_shapes=shapes)
    longer = tuple(t.detach() for t in arguments(1, 14, 3, torch.float32))
    for got, want in zip(program.module()(*longer), Module()(*longer), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [(0, (4,), "w is"), (1, (1, 5), "u is"), (2, (37, 5), "k must"), (3, (2, 36, 5), "v is")],
)
def test_shapes_that_do_not_fit_are_named(place: int, shape: tuple[int, ...], message: str) -> None:
    tensors = arguments()
    tensors[place] = torch.zeros(shape, dtype=torch.float64)
    for op in (bi_wkv, wkv):
        with pytest.raises(ValueError, match=message):
            op(*tensors)


def test_states_that_do_not_fit_are_named() -> None:
    w, u, k, v = arguments()
    with pytest.raises(ValueError, match="state is"):
        wkv(w, u, k, v, torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="the state"):
        wkv_step(w, u, k[:, 0], v[:, 0], torch.zeros(2, 5, 3))


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


def test_works_without_numba_and_importing_costs_neither_it_nor_triton() -> None:
    program = (
        "import sys, torch; before = set(sys.modules); import opsin.core.ops.wkv as ops;"
        "assert not {'numba', 'triton'} & (set(sys.modules) - before);"
        "sys.modules['numba'] = None; x = torch.ones(1, 2, 3);"
        "print(ops.bi_wkv(x[0, 0], x[0, 0], x, x).sum().item())"
    )
    assert run_python(program, OPSIN_NUMBA="0") == "6.0"


TRITON = """
import torch
from opsin.core.ops.wkv import bi_wkv_reference, initial_state, triton, wkv_reference

torch.manual_seed(0)
r = lambda *shape: torch.randn(shape, dtype=torch.float64)
for B, T, C in ((2, 7, 5), (1, 1, 33), (1, 0, 3)):
    w, u, k, v, dy = 0.3 * r(C), r(C), r(B, T, C), r(B, T, C), r(B, T, C)
    leaves = [x.clone().requires_grad_() for x in (w, u, k, v)]
    y = bi_wkv_reference(*leaves)
    want = (y, *torch.autograd.grad(y, leaves, dy))
    pairs = [(want, (triton.bi_forward(w, u, k, v), *triton.bi_backward(w, u, k, v, dy)))]
    for state in (initial_state(k), torch.stack([r(B, C), 1 + r(B, C).abs(), r(B, C)], 1)):
        y, after = wkv_reference(*leaves, state)
        want = (y, after, *torch.autograd.grad(y, leaves, dy))
        pairs.append((want, (*triton.forward(w, u, k, v, state), *triton.backward(w, u, k, v, state, dy))))
    for want, got in pairs:
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
print("same")
"""


def test_triton_kernels_agree_with_the_definition_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    assert run_python(TRITON, TRITON_INTERPRET="1") == "same"


def test_triton_kernels_compile_for_a_gpu() -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from opsin.core.ops.wkv import triton as mixers

    for kernel, switches in (
        (mixers._forward_kernel, {}),
        (mixers._bi_forward_kernel, {}),
        (mixers._backward_kernel, {"BOTH": False}),
        (mixers._backward_kernel, {"BOTH": True}),
    ):
        constants = {**switches, "BLOCK": mixers.BLOCK}
        sizes = dict.fromkeys(("length", "channels"), "i32")
        kinds = {
            name: "constexpr" if name in constants else sizes.get(name, "*fp32") for name in kernel.arg_names
        }
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=kinds, constexprs=places)
        assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}).asm
