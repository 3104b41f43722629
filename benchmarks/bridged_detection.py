"""Times RelationNet++'s relation and SDANet's pyramid against the formulas that their authors run.

    python benchmarks/bridged_detection.py [--size 480 640] [--runs 3]

Same weights, one image, one thread's CPU time, the least of the runs, in turn. The published relation has
its position map computed from the stored embedding at every step and sampled for every pair of pixel and key;
the published attention blocks stack all levels and weigh the stack twice. Agreement is checked first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from time import thread_time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_model
from opsin.core.engine.config import build_model, load_config
from opsin.detection.models.relationnet2 import PositionTable
from opsin.detection.xray.models.sdanet import SDAFPN, SelectiveDenseAttention


class PublishedTable(nn.Module):
    """The position term as published: a map over all offsets, sampled bilinearly."""

    def __init__(self, table: PositionTable) -> None:
        super().__init__()
        self.table = table
        width, height = table.base_size
        y, x = torch.meshgrid(
            torch.arange(-(height // 2), height // 2 + 1.0),
            torch.arange(-(width // 2), width // 2 + 1.0),
            indexing="ij",
        )
        quarter = table.conv.in_channels // 4
        scales = 1000 ** (torch.arange(quarter) / quarter)
        waves = [wave(place[..., None] / scales) for place in (x, y) for wave in (torch.sin, torch.cos)]
        self.embedding = torch.cat(waves, -1)[None]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """As `PositionTable`; x and y are spread over all pairs."""
        base = self.table.conv(self.embedding.permute(0, 3, 1, 2))
        x, y = torch.broadcast_tensors(x, y)
        shape = x.shape
        grid = torch.stack((x, y), -1).reshape(shape[0], -1, shape[-1], 2)
        grid = grid / (0.5 * grid.new_tensor(self.table.base_size))
        found = F.grid_sample(
            base.expand(shape[0], -1, -1, -1), grid, padding_mode="border", align_corners=False
        )
        return found.clamp(min=1e-6).log().view(shape[0], -1, *shape[1:])


def published_block(block: SelectiveDenseAttention, levels: Sequence[Tensor]) -> Tensor:
    """An attention block as published: levels stacked, each selection summed over the stack."""
    stack = torch.stack(block.gather(levels), 1)
    total = stack.sum(1)
    channel = (stack * block.channel_att(total)).sum(1)
    spatial = (stack * block.spatial_att(total)).sum(1)
    refined: Tensor = block.refine(channel + spatial) + levels[block.level]
    return refined


def timed(runs: int, *steps: Callable[[], object]) -> list[float]:
    """The least seconds of each step, run in turn."""
    best = [float("inf")] * len(steps)
    for _ in range(runs + 1):
        for index, step in enumerate(steps):
            start = thread_time()
            step()
            best[index] = min(best[index], thread_time() - start)
    return best


def backward(outputs: Sequence[Tensor]) -> None:
    """A training step's backward pass, from the sum of all outputs."""
    sum(out.float().sum() for out in outputs).backward()


def relations(size: Sequence[int], runs: int) -> None:
    """The head of RetinaNet-R50 with the relation: separable tables against the published map."""
    torch.manual_seed(0)
    head = create_model("retinanet_r50_bvr").bbox_head.eval()
    levels = [torch.randn(1, 256, -(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32, 64, 128)]
    own = [r.relative_positional_encoding for r in (head.cls_transformer, head.reg_transformer)]
    published = [PublishedTable(table) for table in own]

    def use(tables: Sequence[nn.Module]) -> None:
        for relation, table in zip((head.cls_transformer, head.reg_transformer), tables, strict=True):
            relation.relative_positional_encoding = table

    def run(tables: Sequence[nn.Module], train: bool) -> list[Tensor]:
        use(tables)
        with torch.set_grad_enabled(train):
            outputs = [level for part in head(levels) for level in part]
        if train:
            backward(outputs)
        return outputs

    worst = max(
        float((a - b).abs().max()) for a, b in zip(run(own, False), run(published, False), strict=True)
    )
    print(f"largest difference of the outputs: {worst:.1e}")
    stock = head.bbox_head
    for train in (False, True):
        plain = (
            (lambda: backward([x for part in stock(levels) for x in part]))
            if train
            else no_grad(stock, levels)
        )
        a, b, c = timed(runs, lambda t=train: run(own, t), lambda t=train: run(published, t), plain)
        name = "forward + backward" if train else "forward"
        print(f"| head, {name} | {a:.2f} | {b:.2f} ({b / a:.2f}x) | stock head {c:.2f} |")
    use(own)


def no_grad(module: nn.Module, levels: Sequence[Tensor]) -> Callable[[], object]:
    """A step that runs the module without gradients."""

    def step() -> object:
        with torch.no_grad():
            return module(levels)

    return step


def operations(size: Sequence[int]) -> None:
    """Multiply-adds of the stock detector, the key-point head and the relations."""
    stock = build_model(load_config("mmdet::retinanet/retinanet_r50_fpn_1x_coco"))
    bridged = create_model("retinanet_r50_bvr")
    image = torch.zeros(1, 3, *size)
    found = {}
    for name, model in (("stock", stock), ("bridged", bridged)):
        with FlopCounterMode(display=False) as counter:  # with gradients, so that attention is written out
            model(image)
        found[name] = counter.get_total_flops() / 2e9
    levels = bridged.extract_feat(image)
    with FlopCounterMode(display=False) as counter:
        bridged.bbox_head.keypoint_head(levels)
    points = counter.get_total_flops() / 2e9
    rest = found["bridged"] - found["stock"] - points
    print(
        f"multiply-adds at {size[0]} x {size[1]}: stock {found['stock']:.1f} G, with the relation "
        f"{found['bridged']:.1f} G (key points {points:.1f} G, relations {rest:.1f} G)"
    )


def pyramids(size: Sequence[int], runs: int) -> None:
    """The pyramid of a ResNet with SDANet's blocks, against stacked levels and the plain pyramid."""
    torch.manual_seed(0)
    neck = SDAFPN([256, 512, 1024, 2048], 256, 5).eval()
    maps = [
        torch.randn(1, c, -(-size[0] // s), -(-size[1] // s))
        for c, s in ((256, 4), (512, 8), (1024, 16), (2048, 32))
    ]
    plain = super(SDAFPN, neck).forward
    blocks = [getattr(neck, f"selective_attention_{i}") for i in range(5)]

    def published() -> list[Tensor]:
        levels = plain(maps)
        return [published_block(block, levels) for block in blocks]

    with torch.no_grad():
        worst = max(float((a - b).abs().max()) for a, b in zip(neck(maps), published(), strict=True))
        print(f"largest difference of the outputs: {worst:.1e}")
        a, b, c = timed(runs, lambda: neck(maps), published, lambda: plain(maps))
    print(f"| pyramid, forward | {a:.2f} | {b:.2f} ({b / a:.2f}x) | plain pyramid {c:.2f} |")
    a, b, c = timed(
        runs, lambda: backward(neck(maps)), lambda: backward(published()), lambda: backward(plain(maps))
    )
    print(f"| pyramid, forward + backward | {a:.2f} | {b:.2f} ({b / a:.2f}x) | plain pyramid {c:.2f} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| what | opsin, s | published, s (over opsin) | |\n|---|---|---|---|")
    relations(options.size, options.runs)
    pyramids(options.size, options.runs)
    operations(options.size)


if __name__ == "__main__":
    main()
