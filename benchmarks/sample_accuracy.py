"""Trains the sample config of every backbone family and compares with a linear classifier on the pixels.

    python benchmarks/sample_accuracy.py [--work-dir DIR] [--out TABLE.md] [CONFIG …]

Each training is an `opsin train` of its own, so its CPU time is that of a process; a family that has been
trained in DIR already is only read. About a minute of one core a family.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier

from opsin.core.data import list_images, read_image
from opsin.core.task import get_task


def pixels(folder: Path) -> tuple[NDArray[np.float64], list[str]]:
    """All pictures of an ImageFolder as rows of pixels, and their classes."""
    paths = list_images(folder)
    return np.stack([read_image(path).ravel() / 255 for path in paths]), [path.parent.name for path in paths]


def linear_baseline(samples: Path) -> float:
    """Top-1 in percent of a ridge classifier on the pixels."""
    return 100 * float(RidgeClassifier(100).fit(*pixels(samples / "train")).score(*pixels(samples / "val")))


def train(config: str, samples: Path, work_dir: Path) -> float:
    """Trains a config, unless it has been; gives the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "opsin", "train", config, "--data", samples, "--work-dir", work_dir]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([str(part) for part in command], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def accuracy(work_dir: Path) -> float:
    """Top-1 in percent after the last epoch, from the run's JSON log."""
    rows = []
    for log in sorted(work_dir.rglob("scalars.json")):
        rows += [json.loads(line) for line in log.read_text().splitlines()]
    return float([row["accuracy/top1"] for row in rows if "accuracy/top1" in row][-1])


def result(config: str, samples: Path, work_dir: Path) -> tuple[float, float]:
    """Top-1 in percent and CPU seconds of a config's training."""
    kept = work_dir / "result.json"
    if not kept.is_file():
        seconds = train(config, samples, work_dir)
        kept.write_text(json.dumps([accuracy(work_dir), seconds]))
    top1, seconds = json.loads(kept.read_text())
    return float(top1), float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", help="default: all *_mini_samples")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/sample_accuracy"))
    parser.add_argument("--out", type=Path, help="file that the table is written to, too")
    arguments = parser.parse_args()
    task = get_task("classification")
    samples = arguments.work_dir / "samples"
    if not samples.is_dir():
        task.write_samples(samples)
    configs = arguments.configs or [name for name in task.configs() if name.endswith("_mini_samples")]
    chance = 100 / len(list((samples / "train").iterdir()))
    lines = [
        f"Chance {chance:.0f} %, linear {linear_baseline(samples):.1f} %.",
        "",
        "| config | top-1 | CPU seconds |",
        "| --- | --- | --- |",
    ]
    for config in configs:
        top1, seconds = result(config, samples, arguments.work_dir / config)
        lines.append(f"| `{config}` | {top1:.1f} | {seconds:.0f} |")
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
