"""A training step and a prediction of each segmentation system, against the authors' structure, alternating.

    python benchmarks/segmentation_systems.py [--only panoptic] [--threads 2] [--repeats 3]

Both sides are the same model with the same weights in one process. The other side has what the publication
has in the places where opsin computes differently:

* panoptic-segformer, frozenseg: mmcv's multi-scale deformable attention for a CPU (grid sampling in PyTorch:
  mmcv's compiled extension has no CPU kernel for it); the former also mixes mask channels after resizing;
* polymax: the maps of all centres are enlarged to the picture before they are mixed, as the paper writes it;
* ait: every word is written by a pass over all words before it (whether the authors keep keys and values is
  not known);
* rwkv-sam: the recurrence a token at a time in PyTorch (the authors' kernel runs on GPUs alone);
* bas: a deep copy of the upper half at every step.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from compiled_mmcv import stock_attention
from mmengine.structures import InstanceData, PixelData
from panoptic_masks import published as published_masks
from torch import Tensor, nn
from wkv import bi_loop

from opsin.core import create_model
from opsin.core.engine.config import build_model, load_config
from opsin.core.ops import ms_deform_attn as deformable
from opsin.segmentation.dense_prediction.models.ait.task_solver import TaskSolver, choose
from opsin.segmentation.dense_prediction.models.polymax import network as polymax
from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import AttentionMasks
from opsin.segmentation.promptable.models.rwkv_sam import blocks
from opsin.segmentation.weakly_supervised.models.bas import localizer

Step = Callable[[], Any]


@dataclass(frozen=True)
class System:
    """What is timed.

    Args:
        steps: by what they are.
        published: what takes the place of opsin's own, as arguments of `patch.object`.
    """

    steps: dict[str, Step]
    published: list[tuple[Any, str, Any]]


def copied(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """BAS's second pass through copies whose weights get no gradient."""
    for module in modules:
        x = copy.deepcopy(module).requires_grad_(False)(x)
    return x


def unmixed(self: polymax.PolyMax, clusters: Any) -> tuple[Tensor, Tensor]:
    """PolyMaX's weights and values, to be mixed at the picture's size by `enlarged_then_mixed`."""
    return clusters.mask_logits.softmax(1), self.output.values(clusters.values)


def enlarged_then_mixed(pair: tuple[Tensor, Tensor], size: Any) -> Tensor:
    """Weights (B, K, h, w) enlarged, then the mixture (B, D, H, W)."""
    weights = F.interpolate(pair[0], tuple(size), mode="bilinear", align_corners=size[1] % 2 == 1)
    return torch.einsum("bkhw,bkd->bdhw", weights, pair[1])


def write_from_the_start(
    self: TaskSolver, feature: Tensor, task: int, parts: Iterable[range]
) -> tuple[list[Tensor], list[Tensor]]:
    """`TaskSolver.write` without what it keeps: each word costs a pass over all before it."""
    memory, parts = self.encode(feature), list(parts)
    tasks = torch.full((len(feature),), task)
    fed = self.det_embed[tasks]
    words, scores = [], []
    for part in parts:
        x = fed + self._placed(tasks, 0, fed.shape[1])
        logits = self._step(x, self._begin(memory))[0][:, -1]
        own = logits[:, part.start : part.stop]
        words.append(choose(own, self.top_p))
        scores.append(logits)
        fed = torch.cat([fed, self._fed_back(own, words[-1], part)[:, None]], 1)
    return words, scores


def backward(model: nn.Module, losses: Callable[[], dict[str, Any]]) -> None:
    """Forward, losses, backward."""
    model.train().zero_grad()
    found = losses()
    torch.stack(
        [torch.as_tensor(loss).sum() for name, loss in found.items() if "loss" in name]
    ).sum().backward()


def pair(model: Any, inputs: Tensor, samples: Callable[[], list[Any]]) -> dict[str, Step]:
    """Step and prediction of an mmengine model on normalised pictures."""

    def predict() -> None:
        with torch.inference_mode():
            model.eval()(inputs, samples(), mode="predict")

    return {
        "training step": lambda: backward(model, lambda: model(inputs, samples(), mode="loss")),
        "prediction": predict,
    }


def squares(side: int, count: int) -> Tensor:
    """(count, side, side) masks of squares along the diagonal."""
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    width = side // count
    for i, mask in enumerate(masks):
        mask[i * width : (i + 1) * width, i * width : (i + 1) * width] = 1
    return masks


def detected(side: int, things: int = 6) -> Any:
    """A sample of mmdet's with squares as things on two halves of stuff."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    size = (side, side)
    meta = {"img_shape": size, "ori_shape": size, "batch_input_shape": size, "scale_factor": (1.0, 1.0)}
    masks = squares(side, things)
    semantic = torch.full(size, things)
    semantic[side // 2 :] = things + 1
    for label, mask in enumerate(masks):
        semantic[mask.bool()] = label
    starts = torch.arange(things)[:, None] * (side // things)
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(
        labels=torch.arange(things),
        bboxes=torch.cat([starts, starts, starts + side // things, starts + side // things], 1).float(),
        masks=BitmapMasks(masks.numpy(), *size),
    )
    sample.gt_sem_seg = PixelData(sem_seg=semantic[None])
    return sample


def panoptic() -> System:
    """Panoptic SegFormer, ResNet-50, 384x384; two stuff classes follow six things."""
    head = dict(num_things_classes=6, num_stuff_classes=2)
    model = create_model("panoptic_segformer_r50", bbox_head=head)
    side = 384
    steps = pair(model, torch.randn(1, 3, side, side), lambda: [detected(side)])
    attention = (deformable, "ms_deform_attn", stock_attention())
    return System(steps, [attention, (AttentionMasks, "masks", published_masks)])


def open_vocabulary() -> System:
    """FrozenSeg's published head between small frozen networks, 256x256."""
    cfg = load_config("frozenseg_tiny_samples")
    cfg.model.head = dict()
    cfg.model.sam.arch.output_channels = 256
    cfg.model.criterion = dict()
    model = build_model(cfg)
    model.set_classes([(f"class {i}",) for i in range(8)], ["class 6", "class 7"])
    side = 256
    steps = pair(model, torch.randn(1, 3, side, side), lambda: [detected(side)])
    return System(steps, [(deformable, "ms_deform_attn", stock_attention())])


def dense() -> System:
    """PolyMaX for depth with its published decoders on ConvNeXt-T, 225x225."""
    from mmseg.structures import SegDataSample

    side = 225
    model = polymax.PolyMax(
        dict(type="opsin.ConvNeXt", arch="tiny"), (96, 192, 384, 768), dict(type="opsin.DepthOutput")
    )

    def samples() -> list[Any]:
        meta = {"img_shape": (side, side), "ori_shape": (side, side)}
        return [
            SegDataSample(metainfo=meta, gt_depth_map=PixelData(data=torch.full((1, side, side), 2.0)))
        ] * 2

    steps = pair(model, torch.randn(2, 3, side, side), samples)
    ours = [(polymax.PolyMax, "mixture", unmixed), (polymax, "enlarged", enlarged_then_mixed)]
    return System(steps, ours)


def tokens() -> System:
    """AiT's task solver, published size, 225 words of depth."""
    solver = TaskSolver().eval()
    feature = torch.randn(1, 1024, 15, 15)

    def write() -> None:
        with torch.inference_mode():
            solver.write_depth(feature, 225)

    return System({"prediction": write}, [(TaskSolver, "write", write_from_the_start)])


def promptable() -> System:
    """RWKV-SAM's small encoder, 256x256 (256 tokens: the recurrence is too slow for more)."""
    model = create_model("rwkv_sam_small").backbone
    images = torch.randn(1, 3, 256, 256)

    def predict() -> None:
        with torch.inference_mode():
            model.eval()(images)

    def losses() -> dict[str, Any]:
        return {"loss": torch.stack([found.square().mean() for found in model(images)]).sum()}

    steps = {"training step": lambda: backward(model, losses), "prediction": predict}
    return System(steps, [(blocks, "bi_wkv", bi_loop)])


def weakly_supervised() -> System:
    """BAS, ResNet-50 for 200 classes, two pictures of 224x224."""
    network = create_model("bas_resnet50_cub")
    images, labels = torch.randn(2, 3, 224, 224), torch.tensor([3, 7])

    def losses() -> dict[str, Any]:
        found = network.suppress(images, labels)
        guidance = F.cross_entropy(found.foreground_scores, labels)
        return {
            "loss": F.cross_entropy(found.scores, labels) + guidance + found.ratio.mean() + found.area.mean()
        }

    return System({"training step": lambda: backward(network, losses)}, [(localizer, "run_frozen", copied)])


SYSTEMS: dict[str, Callable[[], System]] = {
    "panoptic-segformer": panoptic,
    "frozenseg": open_vocabulary,
    "polymax": dense,
    "ait": tokens,
    "rwkv-sam": promptable,
    "bas": weakly_supervised,
}


@contextmanager
def published_structure(system: System) -> Iterator[None]:
    """The publication's parts in place of opsin's."""
    with ExitStack() as stack:
        for target, name, other in system.published:
            stack.enter_context(patch.object(target, name, other))
        yield


def compare(name: str, repeats: int) -> None:
    """Prints the rows of one system: the least seconds of each side, which take turns."""
    torch.manual_seed(0)
    np.random.seed(0)
    system = SYSTEMS[name]()
    for what, step in system.steps.items():
        least = {"opsin": float("inf"), "published": float("inf")}
        for turn in range(repeats + 1):
            for side in least:
                with ExitStack() as stack:
                    if side == "published":
                        stack.enter_context(published_structure(system))
                    start = perf_counter()
                    step()
                    if turn:  # the first compiles and fills caches
                        least[side] = min(least[side], perf_counter() - start)
        ratio = least["published"] / least["opsin"]
        print(
            f"| {name} | {what} | {least['published']:.2f} | {least['opsin']:.2f} | {ratio:.2f} |", flush=True
        )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| system | what | published structure, s | opsin, s | ratio |\n| --- | --- | --- | --- | --- |")
    for name in SYSTEMS:
        if name.startswith(tuple(given.only)):
            compare(name, given.repeats)


if __name__ == "__main__":
    main()
