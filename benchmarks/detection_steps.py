"""Times whole detectors with RelationNet++ and SDANet against their authors' structure on a compiled mmcv.

    python benchmarks/detection_steps.py time EXTENSION.so [--only ATSS …]
    python benchmarks/detection_steps.py count

A training step is forward, losses and backward; inference is a picture to detections. CPU time of one thread,
so that a busy machine matters little (set NUMBA_NUM_THREADS=1 too). Three sides take turns in one process,
with the same stock mmdet around them: opsin; the authors' structure, on mmcv's compiled extension (see
`compiled_mmcv.py`); and the stock detector without the module, on opsin.

The authors' structure is what their code does with the same weights. Relation: the position map of all
401 x 401 offsets from the stored embedding, once in each relation and step, sampled for every pair of query
and key; attention written out, its mean over the heads made too; the best keys of each class, then of all
classes. Attention blocks: all levels stacked, the stack summed once for each selection and weighed twice.
Their code has no two-stage relation: there the same formulas stand in this package's own head. Outputs
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time
from types import ModuleType
from typing import Any, ClassVar, cast
from unittest.mock import patch

import torch
import torch.nn.functional as F
from compiled_mmcv import add_extension, load_extension
from stock_detectors import compiled_ops, example, predict, train_step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from opsin.core.engine.config import build_model, load_config
from opsin.detection.models.relationnet2 import PositionTable
from opsin.detection.models.relationnet2.keypoints import KeyPointHead
from opsin.detection.models.relationnet2.relation import PointAttention
from opsin.detection.xray.models.sdanet import SelectiveDenseAttention

BRIDGED = {
    "RetinaNet R50": "retinanet/retinanet_r50_fpn_1x_coco",
    "ATSS R50": "atss/atss_r50_fpn_1x_coco",
    "FCOS R50": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "Faster R-CNN R50": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
}
ATTENDED = {
    "Faster R-CNN R101": "faster_rcnn_r101_sdanet_pidray",
    "Mask R-CNN R101": "mask_rcnn_r101_sdanet_pidray",
    "Cascade Mask R-CNN R101": "cascade_mask_rcnn_r101_sdanet_pidray",
}
SIZES = {"relation": ((384, 512), 1), "attention": ((320, 320), 2)}  # height and width, pictures a step


def built(cfg: Any) -> Any:
    """The config's detector with random weights; keys all count, as a trained table has it."""
    cfg.model.backbone.pop("init_cfg", None)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, PositionTable):
            torch.nn.init.constant_(cast(Tensor, module.conv.bias), 0.8)
    return model


def bridged(name: str) -> tuple[Any, Any]:
    """A stock detector with the relation in place, and without."""
    plain, cfg = (load_config(f"mmdet::{BRIDGED[name]}.py") for _ in range(2))
    points: dict[str, Any] = {"num_classes": 80, "in_channels": 256}
    if "roi_head" in cfg.model:
        points["strides"] = [8, 16, 32, 64]
        cfg.model.roi_head.update(type="opsin.BVRRoIHead", keypoint_head=points)
    else:
        cfg.model.bbox_head = {
            "type": "opsin.BVRHead",
            "bbox_head": cfg.model.bbox_head,
            "keypoint_head": points,
        }
    return built(cfg), built(plain)


def attended(name: str) -> tuple[Any, Any]:
    """A detector for PIDray with the attention after its pyramid, and without."""
    plain = load_config(ATTENDED[name], overrides=["model.neck.type=FPN"])
    return built(load_config(ATTENDED[name])), built(plain)


class PublishedTable:
    """The position term as published, for one step: a map over all offsets, sampled bilinearly."""

    embeddings: ClassVar[dict[tuple[int, int, int], Tensor]] = {}  # stored buffers in the authors' modules

    def __init__(self) -> None:
        self.maps: dict[PositionTable, Tensor] = {}

    def look_up(self, table: PositionTable, x: Tensor, y: Tensor) -> Tensor:
        """As `PositionTable.forward`; x and y are spread over all pairs."""
        if table not in self.maps:
            self.maps[table] = table.conv(self.embedding(table))
        x, y = torch.broadcast_tensors(x, y)
        grid = torch.stack((x, y), -1).flatten(1, -3) / (0.5 * x.new_tensor(table.base_size))
        base = self.maps[table].expand(len(x), -1, -1, -1)
        found = F.grid_sample(base, grid, padding_mode="border", align_corners=False)
        return found.clamp(min=1e-6).log().view(len(x), -1, *x.shape[1:])

    @classmethod
    def embedding(cls, table: PositionTable) -> Tensor:
        """The sine embedding of all offsets, (1, C, h + 1, w + 1)."""
        width, height = table.base_size
        key = (width, height, table.conv.in_channels)
        if key not in cls.embeddings:
            of_x = table.waves_x[:, None].expand(-1, height + 1, -1)
            of_y = table.waves_y[:, :, None].expand(-1, -1, width + 1)
            cls.embeddings[key] = torch.cat((of_x, of_y))[None].contiguous()
        return cls.embeddings[key]


def published_attention(self: PointAttention, query: Tensor, keys: Tensor, geometry: Tensor) -> Tensor:
    """As `PointAttention.forward`, written out."""
    q, k, v = (
        self._heads(F.linear(x, *parts))
        for x, parts in zip(
            (query, keys, keys),
            zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True),
            strict=True,
        )
    )
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + geometry).softmax(-1)
    weights.sum(1) / self.num_heads  # theirs returns it
    projected: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return projected


def published_best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of each class of (N, classes, H, W), then of all: scores and cells (N, count)."""
    best, place = scores.flatten(2).topk(min(count, scores[0, 0].numel()))
    top, chosen = best.flatten(1).topk(min(count, best[0].numel()))
    return top, place.flatten(1).take_along_dim(chosen, 1)


def published_block(self: SelectiveDenseAttention, levels: list[Tensor]) -> Tensor:
    """As `SelectiveDenseAttention.forward`, with the levels stacked."""
    gathered = self.gather(levels)
    stack = torch.cat(gathered, 1).unflatten(1, (len(gathered), -1))
    channel = (stack * self.channel_att(stack.sum(1))).sum(1)
    spatial = (stack * self.spatial_att(stack.sum(1))).sum(1)
    level = levels[self.level]
    return F.adaptive_max_pool2d(self.refine(channel + spatial), level.shape[-2:]) + level


@contextmanager
def published() -> Iterator[None]:
    """Both modules in their authors' structure, for one step."""
    table = PublishedTable()

    def look_up(self: PositionTable, x: Tensor, y: Tensor) -> Tensor:
        return table.look_up(self, x, y)

    with (
        patch.object(PositionTable, "forward", look_up),
        patch.object(PointAttention, "forward", published_attention),
        patch.object(KeyPointHead, "best", staticmethod(published_best)),
        patch.object(SelectiveDenseAttention, "forward", published_block),
    ):
        yield


def batch(model: Any, size: tuple[int, int], pictures: int) -> dict[str, Any]:
    """Random pictures with twenty boxes of the detector's classes each."""
    ones = [example(size, with_masks=model.with_mask) for _ in range(pictures)]
    for one in ones:
        one["data_samples"][0].gt_instances.labels %= 12
    return {key: [one[key][0] for one in ones] for key in ones[0]}


def outputs(model: Any, size: tuple[int, int]) -> list[Tensor]:
    """What the modules change: heads' outputs, or the pyramid and box features of two-stage detectors."""
    torch.manual_seed(0)
    with torch.no_grad():
        levels = model.eval().extract_feat(torch.randn(1, 3, *size))
        if not hasattr(model, "roi_head"):
            return [level for part in model.bbox_head(levels) for level in part]
        corners = torch.rand(50, 2) * min(size) / 2
        boxes = torch.cat((torch.zeros(50, 1), corners, corners + 40), 1)
        if hasattr(model.roi_head, "keypoint_head"):
            return list(model.roi_head._bbox_forward(model.roi_head._keyed(levels), boxes).values())
        return list(levels)


def difference(model: Any, size: tuple[int, int]) -> float:
    """The largest difference of both structures, over the largest value."""
    ours = outputs(model, size)
    with published():
        theirs = outputs(model, size)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


def compare(name: str, module: str, functions: ModuleType, scale: float, repeats: int) -> list[str]:
    """The table's rows of one detector."""
    full, pictures = SIZES[module]
    size = (int(full[0] * scale), int(full[1] * scale))
    model, plain = (bridged if module == "relation" else attended)(name)
    apart = difference(model, size)
    rows = []
    for label, step, count in (("training step", train_step, pictures), ("inference", predict, 1)):

        def theirs(step: Callable[..., None] = step, count: int = count) -> None:
            with compiled_ops(functions), published():
                step(model, batch(model, size, count))

        sides = {
            "ours": lambda step=step, count=count: step(model, batch(model, size, count)),
            "theirs": theirs,
            "plain": lambda step=step, count=count: step(plain, batch(plain, size, count)),
        }
        ours, other, bare = least(list(sides.values()), repeats)
        rows.append(
            f"| {name} + {module} | {label} | {other:.2f} | {ours:.2f} | {other / ours:.2f} | {bare:.2f} | "
            f"{apart:.0e} |"
        )
        print(rows[-1], flush=True)
    return rows


def least(sides: list[Callable[[], None]], repeats: int) -> list[float]:
    """The least CPU seconds of each side; they take turns, and the first round is not counted."""
    best = [float("inf")] * len(sides)
    for repeat in range(repeats + 1):
        for index, side in enumerate(sides):
            start = process_time()
            side()
            if repeat:  # the first compiles and fills caches
                best[index] = min(best[index], process_time() - start)
    return best


def count(size: tuple[int, int]) -> None:
    """Multiply-adds of each detector with and without the relation, and of its two parts."""
    print("| detector | stock, G | with the relation, G | key-point head, G | relations, G |")
    print("| --- | --- | --- | --- | --- |")
    for name in BRIDGED:
        model, plain = bridged(name)
        image = torch.zeros(1, 3, *size)
        head = getattr(model, "roi_head", None) or model.bbox_head
        levels = model.extract_feat(image)[-len(head.keypoint_head.strides) :]
        stock = multiply_adds(outputs_with_gradients, plain, image)
        whole = multiply_adds(outputs_with_gradients, model, image)
        points = multiply_adds(head.keypoint_head, levels)
        cells = f"{stock:.1f} | {whole:.1f} | {points:.1f} | {whole - stock - points:.1f}"
        print(f"| {name} | {cells} |", flush=True)


def outputs_with_gradients(model: Any, image: Tensor) -> None:
    """The network without post-processing, on 100 proposals where it has two stages.

    With gradients, since fused attention is not counted.
    """
    levels = model.extract_feat(image)
    if not hasattr(model, "roi_head"):
        model.bbox_head(levels)
        return
    model.rpn_head(levels)
    rois = torch.tensor([[0, 8.0, 8.0, 72.0, 72.0]]).repeat(100, 1)
    head = model.roi_head
    head._bbox_forward(head._keyed(levels) if hasattr(head, "_keyed") else levels, rois)


def multiply_adds(call: Callable[..., object], *given: Any) -> float:
    """In units of 1e9."""
    with FlopCounterMode(display=False) as counter:
        call(*given)
    return counter.get_total_flops() / 2e9


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("time")
    add_extension(timing)
    timing.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    timing.add_argument("--module", choices=SIZES, nargs="*", default=list(SIZES))
    timing.add_argument("--scale", type=float, default=1.0, help="of the pictures' sides")
    timing.add_argument("--repeats", type=int, default=2)
    counting = commands.add_parser("count")
    counting.add_argument("--size", type=int, nargs=2, default=SIZES["relation"][0])
    given = parser.parse_args()
    if given.command == "count":
        count(tuple(given.size))
        return
    torch.set_num_threads(1)
    functions = load_extension(given.extension)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread; CPU seconds.\n")
    print("| detector | what | authors' structure | opsin | ratio | without the module | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for module, names in (("relation", BRIDGED), ("attention", ATTENDED)):
        for name in names if module in given.module else ():
            if name.startswith(tuple(given.only)):
                compare(name, module, functions, given.scale, given.repeats)


if __name__ == "__main__":
    main()
