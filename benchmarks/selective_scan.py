"""Times opsin's selective scan on the CPU against the published form of the loop, in one run.

    python benchmarks/selective_scan.py [--threads 1 2] [--out TABLE.md]

The loop is written as the authors of Mamba publish it: decays and inputs of all steps first, (B, D, L, N)
each, then one Python step a token. Times are the least of several runs, of CPU time with one thread and of
wall time with more.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.selective_scan import selective_scan

LENGTHS = (197, 1024, 4096)


def published_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    bias: Tensor,
    *,
    unbind: bool = False,
) -> Tensor:
    """`unbind` cuts the steps apart once: the backward pass of one index costs as much as all steps."""
    dt = F.softplus(delta + bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", dt, B, u)
    decays, drives, outputs = (x.unbind(d) if unbind else x for x, d in ((decay, 2), (drive, 2), (C, 2)))
    h = A.new_zeros(u.shape[0], *A.shape)
    steps = []
    for t in range(u.shape[2]):
        a, b, c = (
            (decays[t], drives[t], outputs[t]) if unbind else (decay[:, :, t], drive[:, :, t], C[:, :, t])
        )
        h = a * h + b
        steps.append(torch.einsum("bdn,bn->bd", h, c))
    return (torch.stack(steps, 2) + u * D[:, None]) * F.silu(z)


def opsin_scan(*tensors: Tensor) -> Tensor:
    return selective_scan(*tensors, delta_softplus=True)


def arguments(length: int, gradients: bool, channels: int = 384, states: int = 16) -> list[Tensor]:
    """Those of one direction of Vim-Ti: one image, values as a network at its beginning has them."""
    generator = torch.Generator().manual_seed(0)
    wide, narrow = (1, channels, length), (1, states, length)
    u, delta, B, C, z = (torch.randn(s, generator=generator) for s in (wide, wide, narrow, narrow, wide))
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    D, bias = torch.ones(channels), torch.full((channels,), -4.0)
    return [t.requires_grad_(gradients) for t in (u, delta, A, B, C, D, z, bias)]


def once(scan: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    out = scan(*tensors)
    if out.requires_grad:
        torch.autograd.grad(out.sum(), tensors)


def milliseconds(run: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return 1000 * min(times)


def rows(threads: int, repeats: int, longest_loop: int) -> list[str]:
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    contenders: dict[str, Callable[..., Tensor]] = {
        "loop": published_loop,
        "unbound": partial(published_loop, unbind=True),
        "chunked": opsin_scan,
        "numba": opsin_scan,
    }
    lines = []
    for backward in (False, True):
        for length in LENGTHS:
            tensors, times = arguments(length, backward), {}
            for name, scan in contenders.items():
                if name == "loop" and backward and length > longest_loop:
                    continue
                os.environ["OPSIN_NUMBA"] = "0" if name == "chunked" else "1"
                times[name] = milliseconds(
                    partial(once, scan, tensors), clock, repeats if name == "numba" else 2
                )
            numba = times.pop("numba")
            cells = [
                f"{times[n]:.0f} ({times[n] / numba:.1f}×)" if n in times else "not run"
                for n in ("loop", "unbound", "chunked")
            ]
            what = "forward + backward" if backward else "forward"
            lines.append(f"| {what} | {length} | {threads} | {numba:.2f} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--longest-loop", type=int, default=197, help="L of the loop's longest backward pass")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = [
        "| pass | L | threads | opsin, ms | published loop, ms (×) | unbound loop | opsin without Numba |",
        "|---|---|---|---|---|---|---|",
    ]
    print(*head, sep="\n")
    table = head + [
        line for threads in options.threads for line in rows(threads, options.repeats, options.longest_loop)
    ]
    load = os.getloadavg()[0]
    cores = os.cpu_count()
    note = (
        f"torch {torch.__version__}, {platform.machine()}, {cores} cores, load average {load:.1f} at the end"
    )
    print(note)
    if options.out:
        options.out.write_text("\n".join([*table, "", note, ""]))


if __name__ == "__main__":
    main()
