"""Time of reading masks off attention logits: opsin's order of steps against the published one.

    python benchmarks/panoptic_masks.py [HEIGHT WIDTH QUERIES]

The published code resizes eight channels of every coarser level, joins 24 channels and mixes them to one.
Mixing is linear and so is resizing, so opsin mixes each level to one channel first. Both must give the same
masks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import AttentionMasks

DIM, HEADS = 256, 8
STRIDES = (8, 16, 32)
REPEATS = 3


def published(module: AttentionMasks, logits: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """(B, heads, N, T) to (B, N, H, W), in the published order."""
    levels = logits.permute(0, 2, 3, 1).split([height * width for height, width in sizes], 2)
    layers = (module.linear_l1[0], module.linear_l2[0], module.linear_l3[0])
    found = []
    for level, layer, size in zip(levels, layers, sizes, strict=True):
        channels = layer(level).relu().flatten(0, 1).transpose(1, 2).unflatten(2, size)
        if size != sizes[0]:
            channels = F.interpolate(channels, sizes[0], mode="bilinear", align_corners=False)
        found.append(channels.flatten(2).transpose(1, 2))
    mixed = module.linear[0](torch.cat(found, -1)).relu()
    return mixed.view(len(logits), -1, *sizes[0])


def milliseconds(run: Callable[[], object]) -> float:
    """CPU time of the fastest of a few runs: others may be at work on this machine."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Prints the times of forward, and of forward and backward, and their ratios."""
    torch.manual_seed(0)
    height, width, queries = map(int, sys.argv[1:4]) if len(sys.argv) > 3 else (480, 640, 50)
    sizes = [(height // stride, width // stride) for stride in STRIDES]
    module = AttentionMasks(DIM, HEADS)
    logits = torch.randn(1, HEADS, queries, sum(h * w for h, w in sizes), requires_grad=True)
    ways = {
        "published": lambda: published(module, logits, sizes),
        "opsin": lambda: module.masks(logits, sizes),
    }
    torch.testing.assert_close(*(way() for way in ways.values()), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        forward = {name: milliseconds(way) for name, way in ways.items()}
    step = {name: milliseconds(lambda way=way: way().sum().backward()) for name, way in ways.items()}
    for kind, times in (("forward", forward), ("forward and backward", step)):
        ratio = times["published"] / times["opsin"]
        told = ", ".join(f"{name} {value:.0f} ms" for name, value in times.items())
        print(f"{width}x{height}, {queries} queries, {kind}: {told}, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
