"""MHS-VM and MedViTV2 against the authors' structure, MONAI's nets beside them, and memory in 3D.

    python benchmarks/medical_speed.py pairs [--repeats 2]
    python benchmarks/medical_speed.py neighbours [--repeats 2]
    python benchmarks/medical_speed.py memory [--sides 64 96 128 160]

`pairs` gives CPU seconds on one thread, the sides of a pair alternating in one process with the same weights,
whose outputs are compared. The authors' structure is, for MHS-VM, each head scanned alone by the recurrence
step by step; for MedViTV2, neighborhood attention as a loop over the window's places, which is what NATTEN's
plain kernel does. `memory` is what segmenting a volume adds to a process's peak, whole or in windows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from monai.networks.nets import AttentionUnet, DenseNet121, SegResNet, UNet
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.engine.measure import peak_memory
from opsin.core.ops.selective_scan import selective_scan_reference
from opsin.medical.classification.models.medvitv2 import local_block
from opsin.medical.segmentation.models import MedicalSegmentor
from opsin.medical.segmentation.models.mhs_vm import scan
from opsin.medical.segmentation.models.mhs_vm.scan import MHSM

SIZES = {"mhs_vm_4h": 64, "vm_unet": 64, "medvitv2_tiny": 112}
WINDOW = (64, 64, 64)


def heads_alone(mixer: MHSM, x: Tensor) -> Tensor:
    """MHSM as the authors have it, one scan a head: (B, h, w, d) to the same shape."""
    batch, height, width, _ = x.shape
    routes, back = scan.scan_routes(height, width, mixer.heads, x.device)
    cells = mixer.x_ssproj(x).flatten(1, 2).unflatten(2, (mixer.heads, -1)).permute(0, 2, 3, 1)
    heads = []
    for head, engine in enumerate(mixer.engines):
        y = engine(torch.stack([cells[:, head][..., route] for route in routes[head]], 1))
        heads.append(mixer.fuse(torch.stack([y[:, k][..., b] for k, b in enumerate(back[head])], 1)))
    joined = torch.cat(heads, 1).transpose(1, 2).reshape(batch, height, width, -1)
    return mixer.y_proj(mixer.cat_norm(joined))


def recurrence(*given: Any, **named: Any) -> Tensor:
    """The selective scan step by step, without its last state."""
    return selective_scan_reference(*given, **named)[0]


def looped_attention(
    q: Tensor, k: Tensor, v: Tensor, *, kernel_size: int, dilation: int, rpb: Tensor
) -> Tensor:
    """Neighborhood attention (B, heads, H, W, D) without dilation, one place of the window at a time."""
    assert dilation == 1
    starts, places = [], []
    for length in q.shape[2:4]:
        at = torch.arange(length)
        starts.append((at - kernel_size // 2).clamp(0, length - kernel_size))
        places.append(at)
    offsets = [(a, b) for a in range(kernel_size) for b in range(kernel_size)]
    scores = []
    for a, b in offsets:
        rows, columns = starts[0] + a, starts[1] + b
        bias = rpb[:, rows - places[0] + kernel_size - 1][:, :, columns - places[1] + kernel_size - 1]
        scores.append((q * k[:, :, rows][:, :, :, columns]).sum(-1) * q.shape[-1] ** -0.5 + bias)
    weights = torch.stack(scores, -1).softmax(-1)
    out = torch.zeros_like(q)
    for place, (a, b) in enumerate(offsets):
        out = out + weights[..., place, None] * v[:, :, starts[0] + a][:, :, :, starts[1] + b]
    return out


@contextmanager
def as_the_authors(name: str) -> Iterator[None]:
    """Within it, networks run in the authors' structure."""
    if name == "medvitv2_tiny":
        with patch.object(local_block, "neighborhood_attention", looped_attention):
            yield
        return
    with patch.object(scan, "selective_scan", recurrence), patch.object(MHSM, "forward", heads_alone):
        yield


def alternating(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least CPU seconds of each, run in turn; the first turn is not counted."""
    least = dict.fromkeys(sides, float("inf"))
    for turn in range(repeats + 1):
        for side, run in sides.items():
            start = time.process_time()
            run()
            if turn:
                least[side] = min(least[side], time.process_time() - start)
    return least


def pairs(repeats: int) -> None:
    """Prints the table of opsin against the authors' structure."""
    print("| network | what | opsin, s | authors' structure, s | times | difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, size in SIZES.items():
        network = create_model(name, drop_path_rate=0.0)
        x = torch.rand(1, 3, size, size)

        def forward(net: nn.Module = network, x: Tensor = x) -> Tensor:
            with torch.inference_mode():
                return net.eval()(x)

        def step(net: nn.Module = network, x: Tensor = x) -> None:
            net.zero_grad()
            net.eval()(x).square().sum().backward()  # eval: batch norms need no batch

        def theirs(run: Callable[[], Any], name: str = name) -> Any:
            with as_the_authors(name):
                return run()

        ours, other = forward(), theirs(forward)
        difference = float((ours - other).abs().max() / ours.abs().max())
        for what, run in (("forward", forward), ("with backward", step)):
            if name == "vm_unet" and run is step:
                continue  # the plain recurrence keeps every step: a minute a run
            times = alternating({"opsin": run, "authors": lambda r=run: theirs(r)}, repeats)
            ratio = times["authors"] / times["opsin"]
            print(
                f"| {name}, {size}x{size} | {what} | {times['opsin']:.3f} | {times['authors']:.3f} "
                f"| {ratio:.1f} | {difference:.0e} |",
                flush=True,
            )


def neighbours(repeats: int) -> None:
    """Prints what opsin's and MONAI's nets of one kind cost on the same input."""
    print(
        "\n| network | parameters | input | forward, s | with backward, s |\n| --- | --- | --- | --- | --- |"
    )
    unet = UNet(2, 3, 1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2), num_res_units=2)
    rows = [
        ("mhs_vm_4h", create_model("mhs_vm_4h", drop_path_rate=0.0), 128),
        ("vm_unet", create_model("vm_unet", drop_path_rate=0.0), 128),
        ("MONAI UNet, 32 to 512 channels", unet, 128),
        ("MONAI SegResNet, 32", SegResNet(2, 32, 3, 1), 128),
        ("MONAI AttentionUnet, 32 to 512", AttentionUnet(2, 3, 1, (32, 64, 128, 256, 512), (2,) * 4), 128),
        ("medvitv2_tiny", create_model("medvitv2_tiny", num_classes=8, drop_path_rate=0.0), 224),
        ("MONAI DenseNet121", DenseNet121(2, 3, 8), 224),
    ]
    for name, net, size in rows:
        x = torch.rand(1, 3, size, size)

        def forward(net: nn.Module = net, x: Tensor = x) -> None:
            with torch.inference_mode():
                net.eval()(x)

        def step(net: nn.Module = net, x: Tensor = x) -> None:
            net.eval()(x).square().sum().backward()

        times = alternating({"forward": forward, "step": step}, repeats)
        count = sum(p.numel() for p in net.parameters()) / 1e6
        print(
            f"| {name} | {count:.1f} M | {size}x{size} | {times['forward']:.3f} | {times['step']:.3f} |",
            flush=True,
        )


def memory(sides: list[int]) -> None:
    """Prints the memory that volumes of some sides take, each measured in a process of its own."""
    print("| volume | whole, MB | in windows, MB |\n| --- | --- | --- |")
    for side in sides:
        found = []
        for way in ("whole", "windows"):
            command = [sys.executable, __file__, "one", way, str(side)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(done.stdout.strip())
        print(f"| {side}³ | {' | '.join(found)} |", flush=True)


def one(way: str, side: int) -> None:
    """Prints the megabytes that segmenting one volume adds to this process."""
    network = dict(
        type="opsin.monai_network",
        name="UNet",
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=1,
    )
    window = WINDOW if way == "windows" else None
    model = MedicalSegmentor(network, spatial_dims=3, window=window, batch_size=1).eval()
    volume = torch.rand(1, side, side, side)
    with torch.inference_mode():
        model.labels(torch.rand(1, 16, 16, 16) if window is None else torch.rand(1, *WINDOW))
        before = peak_memory()
        model.labels(volume)
    print(round((peak_memory() - before) / 1e6))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pairs", "neighbours"):
        commands.add_parser(name).add_argument("--repeats", type=int, default=2)
    memories = commands.add_parser("memory")
    memories.add_argument("--sides", type=int, nargs="+", default=[64, 96, 128, 160])
    single = commands.add_parser("one")
    single.add_argument("way", choices=("whole", "windows"))
    single.add_argument("side", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "pairs":
        pairs(given.repeats)
    elif given.command == "neighbours":
        neighbours(given.repeats)
    elif given.command == "memory":
        memory(given.sides)
    else:
        one(given.way, given.side)


if __name__ == "__main__":
    main()
