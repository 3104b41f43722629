"""Times opsin's neighborhood attention on the CPU against gathering and unfolding the keys, in one run.

    python benchmarks/neighborhood_attention.py [--repeats 4] [--out TABLE.md]

*Gather* indexes the keys and values of every query (the definition). *Unfold* cuts the windows with
`Tensor.unfold` and repeats the outermost ones along the borders, which is how pure PyTorch versions without
dilation are written. Times are the least of several runs, of CPU time of one thread. Memory is what a pass
adds to the process at its peak, in a child of its own (Linux).
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import torch
from selective_scan import milliseconds
from torch import Tensor
from wkv import peak_mebibytes

from opsin.core.ops.neighborhood_attention import neighborhood_attention, neighborhood_attention_reference

# Sizes, kernel, dilation, batch, heads; heads are 32 wide.
SHAPES = [
    ((56, 56), 7, 1, 1, 2),
    ((56, 56), 7, 8, 1, 2),
    ((28, 28), 7, 1, 8, 4),
    ((14, 14), 7, 1, 1, 8),
    ((7, 7), 7, 1, 1, 16),
    ((4096,), 7, 1, 1, 4),
    ((8, 28, 28), 3, 1, 1, 2),
]
WIDTH = 32


def unfolded(q: Tensor, k: Tensor, v: Tensor, kernel: int, dilation: int, rpb: Tensor) -> Tensor | None:
    """Windows as views, repeated along the borders; None where there is a dilation."""
    if dilation > 1:
        return None
    axes, near = q.ndim - 3, []
    windows = [k, v]
    for axis, length in enumerate(q.shape[2:-1]):
        start = (torch.arange(length) - kernel // 2).clamp(0, length - kernel)
        windows = [x.unfold(2 + axis, kernel, 1).index_select(2 + axis, start) for x in windows]
        entry = start[:, None] + torch.arange(kernel) - torch.arange(length)[:, None] + kernel - 1
        shape = [1] * (2 * axes)
        shape[axis], shape[axes + axis] = entry.shape
        near.append(entry.view(shape))
    keys, values = (x.flatten(3 + axes) for x in windows)  # (B, heads, *sizes, D, keys)
    scores = ((WIDTH**-0.5 * q)[..., None, :] @ keys)[..., 0, :]
    weight = (scores + rpb[(slice(None), *near)].flatten(1 + axes)).softmax(-1)
    return (values @ weight[..., None])[..., 0]


OPS: dict[str, Callable[..., Tensor | None]] = {
    "opsin": neighborhood_attention,
    "gather": neighborhood_attention_reference,
    "unfold": unfolded,
}


def arguments(sizes: tuple[int, ...], kernel: int, batch: int, heads: int, gradients: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, *sizes, WIDTH)] * 3 + [(heads, *[2 * kernel - 1] * len(sizes))]
    return [torch.randn(shape, generator=generator).requires_grad_(gradients) for shape in shapes]


def once(
    op: Callable[..., Tensor | None], tensors: list[Tensor], kernel: int, dilation: int
) -> Tensor | None:
    q, k, v, rpb = tensors
    out = op(q, k, v, kernel, dilation, rpb)
    if out is not None and out.requires_grad:
        torch.autograd.grad(out.sum(), tensors)
    return out


def rows(repeats: int) -> list[str]:
    lines = []
    for backward in (False, True):
        for sizes, kernel, dilation, batch, heads in SHAPES:
            tensors, cells = arguments(sizes, kernel, batch, heads, backward), []
            small = arguments((kernel * dilation,) * len(sizes), kernel, 1, 1, backward)
            time, memory = 0.0, 0.0
            for op in OPS.values():
                work = partial(once, op, tensors, kernel, dilation)
                if work() is None:
                    cells.append("no dilation")
                    continue
                space = peak_mebibytes(work, partial(once, op, small, kernel, dilation))
                spent = milliseconds(work, process_time, repeats)
                time, memory = time or spent, memory or space
                ratio = f" ({spent / time:.1f}×, {space / memory:.1f}×)" if cells else ""
                cells.append(f"{spent:.1f}, {space:.1f}{ratio}")
            what = "forward + backward" if backward else "forward"
            shape = f"{' × '.join(map(str, sizes))} | {kernel} | {dilation} | {batch} × {heads}"
            lines.append(f"| {what} | {shape} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = [
        "| pass | map | K | d | images × heads | opsin: ms, MiB | gather (×) | unfold (×) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print(*head, sep="\n")
    table = head + rows(options.repeats)
    note = (
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {os.getloadavg()[0]:.1f} at the end"
    )
    print(note)
    if options.out:
        options.out.write_text("\n".join([*table, "", note, ""]))


if __name__ == "__main__":
    main()
