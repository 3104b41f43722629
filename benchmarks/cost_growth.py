"""How time and memory of backbones grow with the picture, from 224 to 1248 pixels on a side.

    python benchmarks/cost_growth.py [--threads 1] [--sizes 224 448 672 896 1248] [--out FOLDER] [MODEL …]

One forward pass of each feature extractor in inference, in a process of its own for every size, so that its
peak memory is its own. Writes `cost_growth.md` and `cost_growth.png`. The exponent is that of the picture's
area between the last two sizes: 1 is linear in the pixels, 2 is what attention over all pairs comes to.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from opsin.core import create_backbone
from opsin.core.engine.measure import peak_memory

# State-space, window, plain attention, and convolution.
MODELS = (
    "vim_tiny",
    "msvmamba_nano",
    "davit_tiny",
    "maxvit_tiny",
    "illama_tiny",
    "agent_pvt_tiny",
    "convnext_tiny",
)
SIZES = (224, 448, 672, 896, 1248)
FEWEST_RUNS = 2


def measure(model: str, size: int, threads: int) -> None:
    """Prints the least milliseconds of a forward and the memory it added at its peak, in MiB, as JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    backbone = create_backbone(model).eval()
    image = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        backbone(image[:, :, :64, :64])  # loads what is loaded once
    before = peak_memory()
    clock = time.process_time if threads == 1 else time.perf_counter
    times = []
    with torch.inference_mode():
        while len(times) < FEWEST_RUNS + 1 or (sum(times) < 2 and len(times) < 10):
            begin = clock()
            backbone(image)
            times.append(clock() - begin)
    print(json.dumps([1e3 * min(times[1:]), (peak_memory() - before) / 2**20]))


def measured(model: str, size: int, threads: int) -> tuple[float, float]:
    """The same from a process of its own."""
    command = [sys.executable, __file__, "--one", model, str(size), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    milliseconds, memory = json.loads(done.stdout.splitlines()[-1])
    return milliseconds, memory


def exponent(values: list[float], sizes: list[int]) -> float:
    """By which power of the area the last two values differ."""
    return math.log(values[-1] / values[-2]) / math.log((sizes[-1] / sizes[-2]) ** 2)


def table(results: dict[str, list[tuple[float, float]]], sizes: list[int]) -> list[str]:
    """Lines of markdown: milliseconds / MiB a size, and the exponents."""
    lines = [
        f"| model | {' | '.join(f'{size} px' for size in sizes)} | time ~ area^ | memory ~ area^ |",
        f"| --- | {' | '.join('---' for _ in sizes)} | --- | --- |",
    ]
    for model, values in results.items():
        cells = [f"{milliseconds:.0f} ms, {memory:.0f} MiB" for milliseconds, memory in values]
        powers = [exponent([value[part] for value in values], sizes) for part in (0, 1)]
        lines.append(f"| `{model}` | {' | '.join(cells)} | {powers[0]:.2f} | {powers[1]:.2f} |")
    return lines


def plot(results: dict[str, list[tuple[float, float]]], sizes: list[int], path: Path) -> None:
    """Time and memory over the side, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for part, (axis, label) in enumerate(zip(axes, ("milliseconds", "MiB added"), strict=True)):
        for model, values in results.items():
            axis.loglog(sizes, [value[part] for value in values], marker="o", label=model)
        axis.set(xlabel="side in pixels", ylabel=label, xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SIZE"), help="measure one in this process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one[0], int(arguments.one[1]), arguments.threads)
        return
    results = {}
    for model in arguments.models or MODELS:
        results[model] = [measured(model, size, arguments.threads) for size in arguments.sizes]
        print(model, results[model], flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    about = f"{machine}, {arguments.threads} thread(s), float32, one picture, inference."
    title, picture = "# Cost of larger pictures", "![time and memory](cost_growth.png)"
    lines = [title, "", about, "", *table(results, arguments.sizes), "", picture]
    (arguments.out / "cost_growth.md").write_text("\n".join(lines) + "\n")
    plot(results, arguments.sizes, arguments.out / "cost_growth.png")


if __name__ == "__main__":
    main()
