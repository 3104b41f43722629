"""Times `mmcv.ops` on opsin's functions and on mmcv's compiled extension, alternating in one process.

    python benchmarks/compiled_mmcv.py EXTENSION.so [--only nms roi …] [--threads 2] [--out TABLE.md]
    python benchmarks/compiled_mmcv.py EXTENSION.so --pin packages/core/tests/ops/compiled

EXTENSION.so is `mmcv/_ext.*.so` of a full mmcv that was built for this torch and Python in an environment of
its own (`pip install --no-build-isolation onedl-mmcv==2.3.6`). Multi-scale deformable attention and the
sigmoid focal loss have no compiled CPU code; there the other side is mmcv's and mmdet's PyTorch.

A time is the least wall-clock time of several runs; memory is what a run adds to the process at its peak.
Before it is timed, an op's outputs and gradients are compared. `--pin` writes what the extension gives for
small inputs, which core's tests hold opsin to.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from math import exp, log
from pathlib import Path
from time import perf_counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import opsin.registry  # noqa: F401  # puts opsin's functions in the place of mmcv._ext

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from mmcv_op_cases import CASES, Case, Inputs, extension, run  # the tests' own cases


def add_extension(parser: argparse.ArgumentParser) -> None:
    """Adds the argument EXTENSION.so, which the environment variable MMCV_EXTENSION can give."""
    parser.add_argument("extension", type=Path, nargs="?", default=os.environ.get("MMCV_EXTENSION"))


def load_extension(path: Path | None) -> ModuleType:
    """The compiled functions, without the mmcv around them; ends the run if there are none."""
    if path is None:
        sys.exit("name a compiled mmcv/_ext.*.so, here or in MMCV_EXTENSION; this file's first lines say how")
    loader = ExtensionFileLoader("_ext", str(path))
    spec = spec_from_loader("_ext", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def stock_attention() -> Callable[..., Tensor]:
    """The multi-scale deformable attention that mmcv has for the CPU, which opsin replaces."""
    from mmcv.ops import multi_scale_deform_attn as module

    return module.multi_scale_deformable_attn_pytorch.__wrapped__


def stock_focal_loss(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, weight: None, reduction: str
) -> Tensor:
    """The focal loss that mmdet computes on a CPU, called as mmcv's compiled one; the last class is none."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = torch.nn.functional.one_hot(target, logits.shape[1] + 1)[:, :-1]
    return py_sigmoid_focal_loss(logits, classes, weight, gamma, alpha, reduction)


class Sides:
    """The two ways to compute a case."""

    def __init__(self, compiled: ModuleType) -> None:
        import mmcv.ops

        self.compiled = compiled
        self.own = mmcv.ops
        attention = SimpleNamespace(multi_scale_deformable_attn_pytorch=stock_attention())
        self.stock = SimpleNamespace(multi_scale_deform_attn=attention, sigmoid_focal_loss=stock_focal_loss)

    def of(self, case: Case, ours: bool) -> tuple[Any, Any]:
        """The `ops` to call and the context to call them in."""
        if ours:
            return self.own, nullcontext()
        return (self.own, extension(self.compiled)) if case.compiled else (self.stock, nullcontext())

    def run(self, case: Case, inputs: Inputs, *, ours: bool, backward: bool) -> Inputs:
        """The case's output, with `backward` its gradients too."""
        ops, context = self.of(case, ours)
        with context:
            if backward:
                return run(case, ops, inputs)
            with torch.no_grad():
                return {"output": case.call(ops, inputs)}


def peak_megabytes() -> float:
    """The most memory that the process has had since `reset_peak`."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(
    sides: Sides, case: Case, inputs: Inputs, backward: bool, repeats: int
) -> dict[bool, tuple[float, float]]:
    """Milliseconds and megabytes of each side (key: ours)."""
    best: dict[bool, tuple[float, float]] = {}
    for repeat in range(repeats + 1):
        for ours in (True, False):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            before = peak_megabytes()
            start = perf_counter()
            sides.run(case, inputs, ours=ours, backward=backward)
            taken = (perf_counter() - start) * 1000
            if repeat:  # the first run compiles and fills caches
                least, most = best.get(ours, (float("inf"), 0.0))
                best[ours] = min(least, taken), max(most, peak_megabytes() - before)
    return best


def difference(theirs: Inputs, ours: Inputs) -> float:
    """The norm of the difference over the norm of the tensor, the worst of output and gradients.

    A norm, since single gradients jump: a sample that lies on a cell's border, or one of two equal maxima,
    falls to either side by the last bit.
    """
    worst = 0.0
    for name, want in theirs.items():
        if want.shape != ours[name].shape:
            return float("inf")
        apart = (want.double() - ours[name].double()).norm()
        worst = max(worst, float(apart / want.double().norm().clamp(min=1e-30)))
    return worst


def compare(sides: Sides, name: str, repeats: int) -> list[str]:
    """The table's rows of one case, forward and with backward."""
    case = CASES[name]
    inputs = case.inputs("real", torch.Generator().manual_seed(0))
    worst = difference(*(sides.run(case, inputs, ours=ours, backward=True) for ours in (False, True)))
    rows = []
    for backward in (False, True) if case.leaves else (False,):
        best = measure(sides, case, inputs, backward, repeats)
        (our_time, our_peak), (their_time, their_peak) = best[True], best[False]
        label = "forward + backward" if backward else "forward"
        rows.append(
            f"| {name} | {label} | {their_time:.1f} | {our_time:.1f} | {their_time / our_time:.1f} | "
            f"{their_peak:.0f} | {our_peak:.0f} | {worst:.0e} |"
        )
        print(rows[-1], flush=True)
    return rows


def pin(sides: Sides, folder: Path) -> None:
    """Writes inputs and the extension's outputs at the small size."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        inputs = case.inputs("small", torch.Generator().manual_seed(0))
        outputs = sides.run(case, inputs, ours=False, backward=True)
        arrays = {f"in_{k}": v.numpy() for k, v in inputs.items()} | {
            k: v.numpy() for k, v in outputs.items()
        }
        np.savez_compressed(folder / f"{name}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_extension(parser)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pin", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sides = Sides(load_extension(arguments.extension))
    if arguments.pin:
        pin(sides, arguments.pin)
        return
    header = [
        f"{platform.machine()}, torch {torch.__version__}, {arguments.threads} threads; "
        "times in ms, memory in MB added at the peak.",
        "",
        "| case | pass | compiled | opsin | ratio | compiled MB | opsin MB | difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = [name for name in CASES if name.startswith(tuple(arguments.only))]
    rows = [row for name in names for row in compare(sides, name, arguments.repeats)]
    ratios = [float(row.split("|")[5]) for row in rows]
    mean = exp(sum(log(max(ratio, 1e-3)) for ratio in ratios) / len(ratios))
    closing = ["", f"Geometric mean of the ratios: {mean:.2f}; least {min(ratios):.1f}."]
    print("\n".join(closing))
    if arguments.out:
        arguments.out.write_text("\n".join([*header, *rows, *closing]) + "\n")


if __name__ == "__main__":
    main()
