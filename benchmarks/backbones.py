"""Times opsin's backbones against timm's and the authors' code, both in one process, turn by turn.

    pip install --no-deps --target PEERS/timm timm==1.0.31 huggingface_hub safetensors
    git clone https://github.com/Visual-Attention-Network/VAN-Classification PEERS/VAN-Classification
    (so poolformer, SMT, ECANet and MoH, too)
    python benchmarks/backbones.py --peers PEERS [--columns forward bf16 …] [--rows ROWS.json] [NAME …]

Peers are looked up in PEERS alone, so that they stay out of opsin's environment; modules that they import
but no network uses (torchvision, counters of operations) are stood for by empty ones. The peer's random
weights are placed into our network by their published names first, and both must give the same logits. Then
both get the same pictures in turn, and the least of several runs counts: of CPU time with one thread, of wall
time with more. With `--rows` the results are added to those of earlier calls, so that a long measurement can
be cut. The yardstick is a forward of mmdet's ResNet-50.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.ops.selective_scan import selective_scan_reference
from opsin.core.published import place

ABSENT = ("torchvision", "ptflops", "thop", "pkg_resources")  # imported by the peers for other things
LOOP = "our network with the published loop for a scan"


@dataclass(frozen=True)
class Peer:
    """Another implementation of a model.

    Args:
        name: function that builds it, of the module.
        module: module in a folder of PEERS, or LOOP.
        folder: that folder.
        settings: further arguments of the function.
        size: side of the picture, pixels.
        large: side of the large picture, pixels; 0 where the model is bound to `size`.
        sized: whether the peer is built for a size, by an argument `img_size`.
        ours_large: arguments of our network for large pictures.
    """

    name: str
    module: str = "timm.models"
    folder: str = "timm"
    settings: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    large: int = 448
    sized: bool = False
    ours_large: dict[str, Any] = field(default_factory=dict)


PAIRS = {
    "convnext_tiny": Peer("convnext_tiny"),
    "focalnet_tiny_srf": Peer("focalnet_tiny_srf"),
    "poolformer_s12": Peer("poolformer_s12", "models.poolformer", "poolformer"),  # timm's is another
    "mambaout_femto": Peer("mambaout_femto"),
    "davit_tiny": Peer("davit_tiny"),
    "maxvit_tiny": Peer("maxvit_tiny_tf_224", settings={"transformer_window_size": (7, 7)}, sized=True),
    "shvit_s1": Peer("shvit_s1"),
    "efficientvit_m0": Peer("efficientvit_m0", sized=True),
    "crossvit_9": Peer("crossvit_9_240", large=480, sized=True, ours_large={"img_size": (480, 448)}),
    "halonet_h1": Peer("halonet_h1", size=256, large=512),
    "van_b0": Peer("van_b0", "models.van", "VAN-Classification"),
    "smt_tiny": Peer("smt_t", "models.smt", "SMT"),
    "eca_resnet18": Peer("eca_resnet18", "models.eca_resnet", "ECANet", {"k_size": [3, 5, 7, 7]}),
    "moh_vit_small_75": Peer(
        "moh_transnext_small_75", "transnext", "MoH/MoH-ViT", sized=True, ours_large={"pretrain_size": 448}
    ),
    "vim_tiny": Peer("vim.mixer", LOOP, large=0),
    "msvmamba_nano": Peer("msvmamba.scan", LOOP, large=0),
    "vim2_tiny": Peer("mambamixer.mixer", LOOP, large=0),
}
# What is measured: side of the picture, threads, and what runs.
COLUMNS = {
    "forward": "forward, one thread",
    "backward": "with backward, one thread",
    "bf16": "forward, bfloat16",
    "large": "forward, large picture",
    "threads": "forward, two threads",
    "compiled": "forward, `torch.compile`",
    "memory": "peak memory of a forward",
    "fused": "forward, norms folded by both",
}
Times = tuple[float, float]  # of ours and the peer's
Run = Callable[[], object]


class EmptyModules(MetaPathFinder, Loader):
    """Stands for the modules ABSENT and all within them, none of which the networks use."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Any module of those names is there."""
        if fullname.partition(".")[0] not in ABSENT:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that has whatever it is asked for."""
        module = MagicMock(name=spec.name)
        module.__path__ = []
        module.DistributionNotFound = LookupError  # as of pkg_resources: no CUDA extension is installed
        module.get_distribution.side_effect = LookupError
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class WithLoop(nn.Module):
    """Our network whose scan is the published loop over tokens.

    Args:
        network: one of ours.
        module: where its mixer takes the scan from, below `opsin.core.backbones`.
    """

    def __init__(self, network: nn.Module, module: str) -> None:
        super().__init__()
        self.network = network
        self.target = f"opsin.core.backbones.{module}.selective_scan"

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        with patch(self.target, _published_loop):
            return self.network(images)


def _published_loop(*args: Any, **settings: Any) -> Tensor:
    return selective_scan_reference(*args, **settings)[0]


def peer_network(peers: Path, peer: Peer, size: int) -> nn.Module:
    """A network of theirs with random weights, for pictures of `size` pixels."""
    folder = str(peers / peer.folder)
    for path in (str(peers / "timm"), folder):
        if path not in sys.path:
            sys.path.append(path)
    if not any(isinstance(finder, EmptyModules) for finder in sys.meta_path):
        sys.meta_path.append(EmptyModules())
        _restore_old_names()
    sys.path.remove(folder)
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == peer.module.partition(".")[0]]:
        if peer.folder != "timm":  # two authors name their package `models`
            del sys.modules[name]
    build = getattr(importlib.import_module(peer.module), peer.name)
    sized = {"img_size": size} if peer.sized and (peer.folder != "timm" or size != peer.size) else {}
    network: nn.Module = build(**peer.settings, **sized)
    return network


def _restore_old_names() -> None:
    """What the authors' files import from older timms."""
    import timm.data.transforms
    import timm.layers.helpers

    timm.data.transforms._pil_interp = None  # SMT's pictures
    sys.modules["timm.models.layers.helpers"] = timm.layers.helpers  # PoolFormer


@lru_cache(maxsize=2)
def networks_of(name: str, peers: Path, size: int) -> tuple[nn.Module, nn.Module]:
    """Ours and the peer's, with the same weights and the same logits.

    Raises:
        ValueError: where the logits differ by more than 0.1 % of the largest.
    """
    peer = PAIRS[name]
    torch.manual_seed(0)
    ours = create_model(name, **(peer.ours_large if size == peer.large else {})).eval()
    if peer.module == LOOP:
        theirs: nn.Module = WithLoop(ours, peer.name)
    else:
        theirs = peer_network(peers, peer, size)
        place(ours, theirs.state_dict())
    images = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        ours_logits, their_logits = ours(images), theirs.eval()(images)
    difference = ((ours_logits - their_logits).abs().max() / their_logits.abs().max()).item()
    if difference > 1e-3:
        raise ValueError(f"{name}: the networks' logits differ by {difference:.1e}")
    return ours, theirs


def forward(network: nn.Module, images: Tensor, bf16: bool = False) -> Run:
    """A forward in evaluation."""
    network.eval()

    def run() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            return network(images)

    return run


def step(network: nn.Module, images: Tensor) -> Run:
    """A forward and backward in training."""
    network.train()

    def run() -> object:
        network.zero_grad()
        logits = network(images)
        return (logits[0] if isinstance(logits, tuple) else logits).logsumexp(1).sum().backward()

    return run


def least(runs: list[Run], seconds: float) -> list[float]:
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


def fold(network: nn.Module) -> bool:
    """Folds the norms into the weights where the network can; whether anything was folded."""
    own = getattr(network, "fuse", None)
    if own is not None:
        own()
        return True
    folded = False
    for name, child in list(network.named_children()):  # as timm's and the authors' own scripts do it
        if hasattr(child, "fuse"):
            setattr(network, name, child.fuse())
            folded = True
        else:
            folded |= fold(child)
    return folded


def compare(name: str, column: str, peers: Path, seconds: float) -> Times | None:
    """Times one pair, or measures its memory; None where the pair has no such column."""
    peer = PAIRS[name]
    size = peer.large if column == "large" else peer.size
    if not size or (column in ("compiled", "fused") and peer.module == LOOP):
        return None
    networks = networks_of(name, peers, size)
    images = torch.randn(1, 3, size, size)
    if column == "backward":
        pictures = torch.randn(2, 3, size, size)  # batch norms of 1x1 maps need two
        runs = [step(network, pictures) for network in networks]
    elif column == "fused":
        if not fold(networks[1]):
            return None
        fold(networks[0])
        networks_of.cache_clear()  # they are changed
        runs = [forward(network, images) for network in networks]
    elif column == "compiled":
        runs = [forward(torch.compile(network, dynamic=False), images) for network in networks]
    else:
        runs = [forward(network, images, bf16=column == "bf16") for network in networks]
    if column == "memory":
        return memory(runs[0]), memory(runs[1])
    torch.set_num_threads(2 if column == "threads" else 1)
    ours, theirs = least(runs, seconds)
    torch.set_num_threads(1)
    return ours, theirs


def memory(run: Run) -> float:
    """MiB that the tensors of one run take at its peak, beside those that were there before."""
    run()  # what is made once
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    marks = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    return max(accumulate(size for _, size in marks)) / 2**20


def yardstick(seconds: float) -> float:
    """Milliseconds of a ResNet-50's forward."""
    import opsin.registry  # puts the mmcv extension in place before mmdet is imported

    network = opsin.registry.MODELS.build({"type": "mmdet.ResNet", "depth": 50})
    return least([forward(network, torch.randn(1, 3, 224, 224))], seconds)[0]


def table(rows: dict[str, dict[str, Times]]) -> list[str]:
    """Lines of markdown: a forward in milliseconds and MiB, and the ratios; above 1 opsin is better."""
    lines = [
        f"| model | images/s, ours | {' | '.join(COLUMNS.values())} |",
        f"| --- | --- | {' | '.join('---' for _ in COLUMNS)} |",
    ]
    for name, row in rows.items():
        ratios = [f"{row[c][1] / row[c][0]:.2f}" if row.get(c) else "" for c in COLUMNS]
        speed = f"{1e3 / row['forward'][0]:.1f}" if "forward" in row else ""
        lines.append(f"| {name} | {speed} | {' | '.join(ratios)} |")
    for label, names in (
        ("of all", list(rows)),
        ("without loops", [name for name in rows if PAIRS[name].module != LOOP]),
    ):
        cells = [f"{_mean([rows[n][c] for n in names if rows[n].get(c)])}" for c in COLUMNS]
        lines.append(f"| geometric mean {label} | | {' | '.join(cells)} |")
    return lines


def _mean(pairs: list[Times]) -> str:
    if not pairs:
        return ""
    return f"{torch.tensor([theirs / ours for ours, theirs in pairs]).log().mean().exp().item():.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PAIRS)}")
    parser.add_argument("--peers", type=Path, required=True, help="folder of timm and the authors' code")
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--seconds", type=float, default=6.0, help="for each timing of a pair")
    parser.add_argument("--rows", type=Path, help="JSON file to which the results are added")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    unit = yardstick(3.0)  # first, so that no pair runs in a process that is still cold
    names = arguments.names or list(PAIRS)
    rows: dict[str, dict[str, Times]] = {}
    if arguments.rows and arguments.rows.exists():
        rows = json.loads(arguments.rows.read_text())
    for name in names:
        for column in [column for column in COLUMNS if column in arguments.columns]:
            times = compare(name, column, arguments.peers, arguments.seconds)
            if times is None:
                continue
            print(f"{column} {name}: {times[0]:.1f} against {times[1]:.1f}", flush=True)
            rows.setdefault(name, {})[column] = times
            if arguments.rows:
                arguments.rows.write_text(json.dumps(rows, indent=1) + "\n")
    about = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    lines = [f"{about}; ResNet-50 forward {unit:.0f} ms.", "", *table(rows)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
