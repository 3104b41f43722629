"""RWKV-SAM's encoder against a plain ViT of equal size, from 512 to 2048 pixels on a side.

    python benchmarks/promptable_cost.py [--threads 1] [--sizes 512 1024 2048] [--runs 2] [--out FOLDER]

One forward pass in inference, the least of some after one that is not timed, in a process of its own for
every size, so that its peak memory is its own. The ViT is transformers' (ViT-S/16: 384 channels, 12 layers, 6
heads, global attention by PyTorch's fused kernel) with random weights. Writes `promptable_cost.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from opsin.core.engine.measure import peak_memory

SIZES = (512, 1024, 2048)


def rwkv_sam(size: int) -> nn.Module:
    """RWKV-SAM's small encoder."""
    from opsin.core import create_backbone

    return create_backbone("rwkv_sam_small")


def vit(size: int) -> nn.Module:
    """ViT-S/16 for pictures of `size`."""
    from transformers import ViTConfig, ViTModel

    heads = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    return ViTModel(ViTConfig(image_size=size, **heads), add_pooling_layer=False)


ENCODERS = {"rwkv_sam_small": rwkv_sam, "ViT-S/16": vit}


def measure(name: str, size: int, threads: int, runs: int) -> None:
    """Prints parameters, the least seconds of a forward and the MiB it added at its peak, as JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = ENCODERS[name](size).eval()
    image = torch.randn(1, 3, size, size)
    clock = time.process_time if threads == 1 else time.perf_counter
    before, times = peak_memory(), []
    with torch.inference_mode():
        for _ in range(runs + 1):
            begin = clock()
            encoder(image)
            times.append(clock() - begin)
    count = sum(p.numel() for p in encoder.parameters())
    print(json.dumps([count, min(times[1:]), (peak_memory() - before) / 2**20]))


def measured(name: str, size: int, threads: int, runs: int) -> list[float]:
    """What `measure` prints in a process of its own."""
    threading = {key: str(threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [sys.executable, __file__, "--one", name, str(size)]
    command += ["--threads", str(threads), "--runs", str(runs)]
    done = subprocess.run(
        command, env={**os.environ, **threading}, check=True, capture_output=True, text=True
    )
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def page(rows: dict[tuple[str, int], list[float]], sizes: list[int], threads: int) -> str:
    """The measurements as a page."""
    head = f"{platform.machine()}, torch {torch.__version__}, {threads} thread(s)"
    lines = [
        "# Cost of promptable encoders\n",
        f"`python benchmarks/promptable_cost.py`, {head}; seconds a picture, memory added (MiB).\n",
        "| side | " + " | ".join(f"{name} s | MiB" for name in ENCODERS) + " | ViT / RWKV-SAM |",
        "| --- |" + " --- |" * (2 * len(ENCODERS) + 1),
    ]
    for size in sizes:
        values = [rows[name, size] for name in ENCODERS]
        cells = " | ".join(f"{seconds:.2f} | {memory:.0f}" for _, seconds, memory in values)
        lines.append(f"| {size} | {cells} | {values[1][1] / values[0][1]:.2f} |")
    counts = ", ".join(f"{name} {int(rows[name, sizes[0]][0]):,}" for name in ENCODERS)
    return "\n".join([*lines, f"\nParameters at {sizes[0]} pixels: {counts}.\n"])


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", nargs=2, metavar=("ENCODER", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one[0], int(given.one[1]), given.threads, given.runs)
        return
    rows = {
        (name, size): measured(name, size, given.threads, given.runs)
        for size in given.sizes
        for name in ENCODERS
    }
    (given.out / "promptable_cost.md").write_text(page(rows, given.sizes, given.threads), encoding="utf-8")


if __name__ == "__main__":
    main()
