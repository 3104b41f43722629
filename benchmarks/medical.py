"""Segmentation networks at an equal budget of CPU time on the sample slices, and MHS-VM's speed.

    python benchmarks/medical.py learn SAMPLES/slices [--seconds 15] [--seeds 3]
    python benchmarks/medical.py speed [--size 128]

`learn` trains MHS-VM (tiny), multi-scale attention (tiny) and MONAI's U-Net from scratch, each for as many
seconds of CPU time on one thread, and gives Dice on the test subjects with its spread over the seeds. `speed`
times the published four-headed network against the same one with the authors' structure (each head scanned
alone by the reference recurrence), and VM-UNet with both recurrences.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from opsin.core import create_model
from opsin.core.ops.selective_scan import selective_scan_reference
from opsin.medical.segmentation.datasets import SegmentationSample, SliceDataset
from opsin.medical.segmentation.metrics import SubjectDiceMetric
from opsin.medical.segmentation.models import MedicalSegmentor
from opsin.medical.segmentation.models.mhs_vm import scan
from opsin.medical.segmentation.models.mhs_vm.scan import MHSM

CLASSES = ("background", "grey matter", "white matter")
NETWORKS = {
    "MHS-VM, tiny": (dict(type="opsin.MHSVM", arch="tiny", num_classes=3), dict(type="opsin.CEDiceLoss")),
    "multi-scale attention, tiny": (
        dict(
            type="opsin.MultiScaleAttention",
            num_classes=3,
            channels=16,
            depths=(1, 1, 1, 1),
            groups=4,
            width_per_group=4,
            stem_channels=16,
            unused_layers=False,
        ),
        dict(type="opsin.GuidedAttentionLoss"),
    ),
    "MONAI U-Net": (
        dict(
            type="opsin.monai_network",
            name="UNet",
            spatial_dims=2,
            in_channels=1,
            out_channels=3,
            channels=(16, 32, 64, 128),
            strides=(2, 2, 2),
            num_res_units=1,
        ),
        dict(type="opsin.CEDiceLoss"),
    ),
}
BATCH, RATE = 8, 4e-3


def load(folder: Path) -> list[tuple[Tensor, SegmentationSample]]:
    """All slices of a folder, from 0 to 1, with their samples."""
    dataset = SliceDataset(data_root=str(folder), classes=CLASSES, pipeline=[dict(type="opsin.PackMedical")])
    return [(item["inputs"] / 255, item["data_samples"]) for item in dataset]


def train(model: MedicalSegmentor, slices: list[tuple[Tensor, SegmentationSample]], seconds: float) -> int:
    """Trains for `seconds` of CPU time, the rate falling to 0; gives the number of steps."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    start, steps, spent = time.process_time(), 0, 0.0
    while spent < seconds:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + np.cos(np.pi * spent / seconds)) / 2
        chosen = [slices[i] for i in np.random.randint(len(slices), size=BATCH)]
        losses = model([image for image, _ in chosen], [sample for _, sample in chosen], mode="loss")
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        steps, spent = steps + 1, time.process_time() - start
    return steps


@torch.no_grad()
def dice(model: MedicalSegmentor, slices: list[tuple[Tensor, SegmentationSample]]) -> tuple[float, float]:
    """Dice of grey and of white matter over all slices."""
    metric = SubjectDiceMetric(CLASSES)
    for image, sample in slices:
        model([image], [sample], mode="predict")
        metric.process(None, [sample.to_dict()])
    numbers = metric.compute_metrics(metric.results)
    return numbers["dice_2d_grey matter"], numbers["dice_2d_white matter"]


def learn(folder: Path, seconds: float, seeds: int) -> None:
    """Prints the table of Dice."""
    slices, held_out = load(folder / "train"), load(folder / "test")
    print("| network | parameters | steps | grey matter | white matter |\n| --- | --- | --- | --- | --- |")
    for name, (network, loss) in NETWORKS.items():
        rows, steps = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            np.random.seed(seed)
            model = MedicalSegmentor(network, loss).train()
            steps.append(train(model, slices, seconds))
            rows.append(dice(model.eval(), held_out))
        table = np.array(rows)
        shown = " | ".join(
            f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(0), table.std(0, ddof=1), strict=True)
        )
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"| {name} | {parameters:.2f} M | {np.mean(steps):.0f} | {shown} |", flush=True)


class SeparateHeads(MHSM):
    """The authors' structure: one scan a head."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, d) to the same shape."""
        batch, height, width, _ = x.shape
        routes, back = scan.scan_routes(height, width, self.heads, x.device)
        cells = self.x_ssproj(x).flatten(1, 2).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
        heads = []
        for head, engine in enumerate(self.engines):
            y = engine(torch.stack([cells[:, head][..., route] for route in routes[head]], 1))
            heads.append(self.fuse(torch.stack([y[:, k][..., b] for k, b in enumerate(back[head])], 1)))
        joined = torch.cat(heads, 1).transpose(1, 2).reshape(batch, height, width, -1)
        return self.y_proj(self.cat_norm(joined))


def plain_scan(*given: Any, **named: Any) -> Tensor:
    """The recurrence step by step, without its last state."""
    return selective_scan_reference(*given, **named)[0]


def least(run: Callable[[], object], repeats: int) -> float:
    """The least CPU seconds of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def speed(size: int) -> None:
    """Prints forward, and forward with backward, in CPU seconds."""
    x = torch.rand(1, 3, size, size)
    print("| network | forward, s | with backward, s |\n| --- | --- | --- |")
    for name, separate, reference in (
        ("mhs_vm_4h", False, False),
        ("mhs_vm_4h", True, True),
        ("vm_unet", False, False),
        ("vm_unet", False, True),
    ):
        network = create_model(name, drop_path_rate=0.0)
        if separate:
            for module in network.modules():
                if type(module) is MHSM:
                    module.__class__ = SeparateHeads
        times = _times(network, x, reference)
        what = ", heads alone" * separate + ", reference recurrence" * reference
        print(f"| {name}{what} | {times[0]:.2f} | {times[1]:.2f} |", flush=True)


def _times(network: torch.nn.Module, x: Tensor, reference: bool) -> tuple[float, float]:
    def forward() -> None:
        with torch.inference_mode():
            network.eval()(x)

    def step() -> None:
        network.train()(x).sum().backward()

    def both() -> tuple[float, float]:
        forward()
        return least(forward, 2), least(step, 2)

    if not reference:
        return both()
    with patch.object(scan, "selective_scan", plain_scan):
        return both()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("learn")
    learning.add_argument("slices", type=Path)
    learning.add_argument("--seconds", type=float, default=15.0)
    learning.add_argument("--seeds", type=int, default=3)
    timing = commands.add_parser("speed")
    timing.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "learn":
        learn(given.slices, given.seconds, given.seeds)
    else:
        speed(given.size)


if __name__ == "__main__":
    main()
