"""The Triton kernels where there is no GPU: run by the interpreter, compiled for GPUs, chosen by device."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from opsin.core.ops import triton_kernels

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402  # after the check that Triton is there
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import mangle_type  # noqa: E402

from opsin.core.ops.triton_kernels import deform_conv, focal_loss, ms_deform_attn, nms, roi_align  # noqa: E402


def test_kernels_agree_with_the_definitions_in_the_interpreter() -> None:
    """In a process of its own: Triton reads the environment when a kernel is defined."""
    file = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_tensors_on_a_gpu_take_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    # a Runner of another test in this process may have asked for determinism
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    with FakeTensorMode():
        on_gpu, elsewhere = torch.zeros(1, device="cuda"), torch.zeros(1)
    assert triton_kernels.enabled(on_gpu, on_gpu)
    assert triton_kernels.may_scatter(on_gpu)
    assert not triton_kernels.enabled(elsewhere)
    assert not triton_kernels.enabled(on_gpu, elsewhere)


Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]  # a kernel, its arguments, its constants and options


def attention(value: Tensor, heads: int, points: int) -> None:
    value = value.expand(2, 14, heads, 32)
    shapes, places = torch.tensor([[3, 4], [1, 2]]), torch.zeros(2, 5, heads, 2, points, 2, dtype=value.dtype)
    given = (value, shapes, places, places[..., 0], torch.zeros(2, 5, heads, 32, dtype=value.dtype))
    ms_deform_attn.forward(*given)
    ms_deform_attn.backward(*given, *given[:1], *given[2:4])


def regions(maps: Tensor, bins: int) -> None:
    pooled, corners = torch.zeros(3, bins, bins, maps.shape[3], dtype=maps.dtype), torch.zeros(3, 2).to(maps)
    grid = (torch.zeros(3, dtype=torch.long), corners, corners, corners.long())
    roi_align.forward(maps, *grid, pooled)
    roi_align.backward(pooled, *grid, maps)


def losses(logits: Tensor, weight: Tensor | None, gamma: float) -> None:
    target = torch.zeros(len(logits), dtype=torch.long)
    settings = (logits, target, weight, gamma, 0.3)
    focal_loss.sigmoid_forward(*settings)
    focal_loss.sigmoid_backward(logits[:1, :1], *settings)
    focal_loss.softmax_forward(*settings)
    focal_loss.softmax_backward(logits[:, 0], *settings)


def columns(maps: Tensor, groups: int, masked: bool) -> None:
    offset = torch.zeros(groups, 9, 2, 4, 4).to(maps)
    mask, rows = torch.zeros(groups, 9, 4, 4 * masked).to(maps), torch.zeros(16, 9, maps.shape[2]).to(maps)
    given = (0, maps, offset, mask, (3, 1, 1, 1, 1, 1, 2), rows)
    deform_conv.gather(*given)
    deform_conv.scatter(*given, maps, offset, mask)


FLOAT, DOUBLE = torch.float32, torch.float64
CALLS: dict[str, Callable[[], object]] = {
    "ms_deform_attn": lambda: attention(torch.zeros((), dtype=FLOAT), 8, 4),
    "ms_deform_attn-double-ones": lambda: attention(torch.zeros((), dtype=DOUBLE), 1, 1),
    "roi_align": lambda: regions(torch.zeros(2, 5, 6, 256), 7),
    "roi_align-double-ones": lambda: regions(torch.zeros(1, 1, 1, 1, dtype=DOUBLE), 1),
    "focal_loss": lambda: losses(torch.zeros(9, 80), torch.zeros(80), 2.0),
    "focal_loss-half-ones": lambda: losses(torch.zeros(1, 1, dtype=torch.bfloat16), None, 0.0),
    "focal_loss-double": lambda: losses(torch.zeros(9, 1203, dtype=DOUBLE), None, 1.5),
    "deform_conv": lambda: columns(torch.zeros(5, 4, 64), 2, masked=True),
    "deform_conv-double-ones": lambda: columns(torch.zeros(1, 1, 1, dtype=DOUBLE), 1, masked=False),
    "nms": lambda: nms.suppress(torch.zeros(4, 300), 0.5, 0),
    "nms-double": lambda: nms.suppress(torch.zeros(4, 65, dtype=DOUBLE), 0.5, 1),
}


def launches(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What `call` would launch on a GPU."""
    seen: list[Launch] = []

    def record(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        assert 0 not in grid
        seen.append((kernel, arguments, constants))

    for module in (deform_conv, focal_loss, ms_deform_attn, nms, roi_align):
        monkeypatch.setattr(module, "launch", record)
    call()
    return seen


def compiled(launch: Launch, capability: int) -> dict[str, Any]:
    """The stages of a kernel's compilation for its arguments, whose ones Triton takes for constants."""
    kernel, arguments, constants = launch
    values = dict(zip(kernel.arg_names, arguments, strict=False))
    fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
    fixed |= {name: 1 for name, value in values.items() if not isinstance(value, Tensor) and value == 1}
    signature = {
        name: "constexpr" if name in fixed else mangle_type(values[name]) for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm


@pytest.mark.parametrize(
    ("name", "capability"),
    [*((name, 90) for name in CALLS), *((name, 80) for name in CALLS if "-" not in name)],
)
def test_kernels_compile_for_gpus(name: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = launches(CALLS[name], monkeypatch)
    assert len(seen) >= 2
    for launch in seen:
        assert f".target sm_{capability}" in compiled(launch, capability)["ptx"]
