"""Times opsin's backbones against timm's, both in one process, turn by turn.

    pip install --no-deps --target PEERS timm==1.0.31 huggingface_hub safetensors
    python benchmarks/backbones.py --peers PEERS [--size 224] [--threads 1] [--bf16] [--out TABLE.md] [NAME …]

timm is looked up in PEERS alone, so that it stays out of opsin's environment; it imports torchvision for its
data pipeline only, which an empty module stands for here. Both networks get the same pictures in turn, and
the least of several runs counts: of CPU time with one thread, of wall time with more. The yardstick is a
forward of mmdet's ResNet-50.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from opsin.core import create_model

# Our model and timm's of the same architecture.
PAIRS = {
    "convnext_tiny": "convnext_tiny",
    "focalnet_tiny_srf": "focalnet_tiny_srf",
    "poolformer_s12": "poolformer_s12",
    "mambaout_femto": "mambaout_femto",
    "davit_tiny": "davit_tiny",
    "maxvit_tiny": "maxvit_tiny_tf_224",
    "shvit_s1": "shvit_s1",
    "efficientvit_m0": "efficientvit_m0",
    "crossvit_9": "crossvit_9_240",
}


@dataclass
class Row:
    """Milliseconds of both, forward and forward with backward."""

    name: str
    ours: float
    theirs: float
    ours_step: float
    theirs_step: float


class EmptyTorchvision(MetaPathFinder, Loader):
    """Stands for torchvision and all its modules, none of which the networks use."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Any module of that name is there."""
        if fullname.partition(".")[0] != "torchvision":
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that has whatever it is asked for."""
        module = MagicMock(name=spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def timm_model(peers: Path, name: str) -> nn.Module:
    """A network of timm's with random weights."""
    if str(peers) not in sys.path:
        sys.path.append(str(peers))
        sys.meta_path.append(EmptyTorchvision())
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def forward(network: nn.Module, images: Tensor, bf16: bool) -> Callable[[], object]:
    """A forward in evaluation."""
    network.eval()

    def run() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return network(images)

    return run


def step(network: nn.Module, images: Tensor, bf16: bool) -> Callable[[], object]:
    """A forward and backward in training."""
    network.train()

    def run() -> object:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(images).float().logsumexp(1).sum()
        return loss.backward()

    return run


def least(runs: list[Callable[[], object]], seconds: float) -> list[float]:
    """The least milliseconds of each function, run in turn for about so many seconds in all."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for run in runs:
        run()
    best = [float("inf")] * len(runs)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or max(best) == float("inf"):
        for index, run in enumerate(runs):
            begin = clock()
            run()
            best[index] = min(best[index], (clock() - begin) * 1e3)
    return best


def compare(ours: str, peers: Path, size: int, batch: int, bf16: bool, seconds: float) -> Row:
    """Times one pair."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    networks = create_model(ours), timm_model(peers, PAIRS[ours])
    times = least([forward(network, images, bf16) for network in networks], seconds)
    images = images if batch > 1 else images.repeat(2, 1, 1, 1)  # batch norms of 1x1 maps need two
    steps = least([step(network, images, bf16) for network in networks], seconds)
    return Row(ours, *times, *steps)


def yardstick(size: int, batch: int, seconds: float) -> float:
    """Milliseconds of a ResNet-50's forward."""
    import opsin.registry  # puts the mmcv extension in place before mmdet is imported

    network = opsin.registry.MODELS.build({"type": "mmdet.ResNet", "depth": 50})
    return least([forward(network, torch.randn(batch, 3, size, size), False)], seconds)[0]


def table(rows: list[Row], unit: float) -> list[str]:
    """Lines of markdown; ratios above 1 mean that opsin is faster."""
    lines = [
        "| model | forward, ResNet-50s | timm | ratio | with backward | timm | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ahead = (row.ours, row.theirs), (row.ours_step, row.theirs_step)
        cells = [f"{a / unit:.2f} | {b / unit:.2f} | {b / a:.2f}" for a, b in ahead]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    for label, ratios in (
        ("forward", [row.theirs / row.ours for row in rows]),
        ("with backward", [row.theirs_step / row.ours_step for row in rows]),
    ):
        mean = float(torch.tensor(ratios).log().mean().exp())
        lines += ["", f"Geometric mean of the ratios, {label}: {mean:.2f}; least {min(ratios):.2f}."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PAIRS)}")
    parser.add_argument("--peers", type=Path, required=True, help="folder that holds timm")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each timing of a pair")
    parser.add_argument("--out", type=Path, help="file that the table is written to, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    unit = yardstick(arguments.size, arguments.batch, arguments.seconds)
    rows = []
    for name in arguments.names or PAIRS:
        settings = (arguments.size, arguments.batch, arguments.bf16, arguments.seconds)
        rows.append(compare(name, arguments.peers, *settings))
        print(rows[-1], flush=True)
    kind = "bfloat16 autocast" if arguments.bf16 else "float32"
    about = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {kind}, "
    about += f"{arguments.batch}x3x{arguments.size}x{arguments.size}, {arguments.threads} thread(s); "
    lines = [f"{about}ResNet-50 forward {unit:.0f} ms.", "", *table(rows, unit)]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
