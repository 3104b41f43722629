"""Time and peak memory of one model, in the process that calls it."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch


def peak_memory() -> int:
    """The most memory that this process has had resident so far, in bytes.

    Linux's `ru_maxrss` counts what the parent had before it started this process, so the kernel's own mark of
    this program is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(mark.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(name: str, size: int, batch: int, threads: int, runs: int, train: bool, bf16: bool) -> None:
    """Prints one JSON line: the model's median milliseconds a batch and the memory it added at its peak.

    Args:
        name: a model name.
        size: side of the square input, pixels.
        batch: images a batch.
        threads: CPU threads.
        runs: timed runs after two that are not.
        train: forward and backward in train mode instead of forward in eval mode.
        bf16: under bf16 autocast.
    """
    from torch.utils._pytree import tree_leaves

    from opsin.core.models import create_model, example_inputs

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = create_model(name).train(train)
    inputs = example_inputs(model, torch.randn(batch, 3, size, size))
    before = peak_memory()

    def step() -> float:
        start = time.perf_counter()
        with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(*inputs)
        if train:
            numbers = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
            torch.stack([leaf.float().square().mean() for leaf in numbers]).sum().backward()
        return time.perf_counter() - start

    for _ in range(2):
        step()
    median = statistics.median(step() for _ in range(runs))
    added = (peak_memory() - before) / 2**20
    print(json.dumps({"model": name, "milliseconds": 1000 * median, "peak_megabytes": added}))
