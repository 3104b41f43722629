"""Times opsin's WKV on the CPU against the recurrence in PyTorch and against the definition, in one run.

    python benchmarks/wkv.py [--lengths 196 1024 4096] [--repeats 6] [--out TABLE.md]

The recurrence is that of the published kernels, a token at a time; both ways it is run from either end and
the two are combined. Times are the least of several runs, of CPU time of one thread. Memory is what a pass
adds to the process at its peak, in a child of its own (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import torch
from selective_scan import milliseconds
from torch import Tensor

from opsin.core.ops.wkv import bi_wkv, bi_wkv_reference, initial_state, wkv, wkv_reference

Op = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LONGEST_PAIRS = 1024  # tokens that the definition is run for: it makes a number for each pair
LONGEST_LOOP_BACK = 1024


def states(w: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Numerator, denominator and scale before each token."""
    a, b, o = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e38)
    found = []
    for key, value in zip(k.unbind(1), v.unbind(1), strict=True):
        found.append((a, b, o))
        top = torch.maximum(o - w, key)
        past, own = torch.exp(o - w - top), torch.exp(key - top)
        a, b, o = past * a + own * value, past * b + own, top
    return found


def loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    outs = []
    for (a, b, o), key, value in zip(states(w, k, v), k.unbind(1), v.unbind(1), strict=True):
        top = torch.maximum(o, u + key)
        past, own = torch.exp(o - top), torch.exp(u + key - top)
        outs.append((past * a + own * value) / (past * b + own))
    return torch.stack(outs, 1)


def bi_loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    pasts, futures = states(w, k, v), states(w, k.flip(1), v.flip(1))[::-1]
    outs = []
    for (a, b, o), (c, d, p), key, value in zip(pasts, futures, k.unbind(1), v.unbind(1), strict=True):
        top = torch.maximum(torch.maximum(o, p), u + key)
        past, future, own = torch.exp(o - top), torch.exp(p - top), torch.exp(u + key - top)
        outs.append((past * a + future * c + own * value) / (past * b + future * d + own))
    return torch.stack(outs, 1)


def causal(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return wkv(w, u, k, v)[0]


def causal_pairs(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return wkv_reference(w, u, k, v, initial_state(k))[0]


OPS: dict[str, dict[str, Op]] = {
    "both ways": {"opsin": bi_wkv, "loop": bi_loop, "pairs": bi_wkv_reference, "chunked": bi_wkv},
    "causal": {"opsin": causal, "loop": loop, "pairs": causal_pairs, "chunked": causal},
}


def arguments(length: int, gradients: bool, channels: int = 192) -> list[Tensor]:
    """One image's tokens; decays as Vision-RWKV's, divided by the length."""
    generator = torch.Generator().manual_seed(0)
    w, u = torch.linspace(-5, 3, channels) / length, torch.full((channels,), -1.2 / length)
    k, v = (torch.randn(1, length, channels, generator=generator) for _ in range(2))
    return [t.requires_grad_(gradients) for t in (w, u, k, v)]


def once(op: Op, tensors: list[Tensor]) -> None:
    out = op(*tensors)
    if out.requires_grad:
        torch.autograd.grad(out.sum(), tensors)


def peak_mebibytes(work: Callable[[], object], small: Callable[[], object]) -> float:
    """What `work` adds to a process's memory at its peak, measured in a child that did `small` before."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        small()  # touches the code and what is made once
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
        before = resident("VmRSS")
        work()
        os.write(write, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read, 64)) / 1024


def resident(name: str) -> int:
    """A size in kB from this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def rows(lengths: list[int], repeats: int) -> list[str]:
    lines = []
    for kind, contenders in OPS.items():
        for backward in (False, True):
            for length in lengths:
                tensors, cells = arguments(length, backward), []
                least = 0.0
                for name, op in contenders.items():
                    if (name == "pairs" and length > LONGEST_PAIRS) or (
                        name == "loop" and backward and length > LONGEST_LOOP_BACK
                    ):
                        cells.append("not run")
                        continue
                    os.environ["OPSIN_NUMBA"] = "0" if name == "chunked" else "1"
                    work = partial(once, op, tensors)
                    memory = peak_mebibytes(work, partial(once, op, arguments(2, backward)))
                    time = milliseconds(work, process_time, repeats if name == "opsin" else 2)
                    least = least or time
                    cells.append(f"{time:.2f} ({time / least:.0f}×, {memory:.1f} MiB)")
                what = "forward + backward" if backward else "forward"
                lines.append(f"| {kind} | {what} | {length} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[196, 1024, 4096])
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = [
        "| op | pass | T | opsin, ms | loop of tokens | definition by pairs | opsin without Numba |",
        "|---|---|---|---|---|---|---|",
    ]
    print(*head, sep="\n")
    table = head + rows(options.lengths, options.repeats)
    note = (
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[0]:.1f} at the end"
    )
    print(note)
    if options.out:
        options.out.write_text("\n".join([*table, "", note, ""]))


if __name__ == "__main__":
    main()
