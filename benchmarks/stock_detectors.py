"""Times stock mmdet detectors on opsin's ops and on mmcv's compiled extension, alternating in one process.

    python benchmarks/stock_detectors.py EXTENSION.so [--threads 2] [--repeats 3] [--out TABLE.md]

Configs, heads, losses and post-processing are mmdet's own, weights random (a trained network keeps fewer
boxes); one picture of 800 x 1216 (RTMDet 640 x 640). A training step is forward and backward with 20 boxes.
EXTENSION.so as in `compiled_mmcv.py`.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
import torch
from compiled_mmcv import add_extension, load_extension, stock_attention
from mmcv_op_cases import extension
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from opsin.core.engine.config import build_model, load_config

DETECTORS = {
    "Faster R-CNN R50": ("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", (800, 1216)),
    "Mask R-CNN R50": ("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", (800, 1216)),
    "Deformable DETR R50": ("mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", (800, 1216)),
    "RTMDet-tiny": ("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py", (640, 640)),
}


@contextmanager
def compiled_ops(functions: ModuleType) -> Iterator[None]:
    """Mmcv as a user of its compiled build has it on a CPU."""
    import mmcv.ops.multi_scale_deform_attn as attention

    mended = attention.multi_scale_deformable_attn_pytorch
    attention.multi_scale_deformable_attn_pytorch = stock_attention()
    try:
        with extension(functions):
            yield
    finally:
        attention.multi_scale_deformable_attn_pytorch = mended


def detector(name: str) -> Any:
    """The stock model with random weights."""
    cfg = load_config(name)
    cfg.model.backbone.pop("init_cfg", None)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    return model


def example(size: tuple[int, int], *, with_masks: bool, boxes: int = 20) -> dict[str, Any]:
    """One random picture with boxes, and their masks if they are asked for, as a data loader gives it."""
    height, width = size
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.6, (boxes, 2)) * (width, height)
    sides = random.uniform(0.05, 0.35, (boxes, 2)) * (width, height)
    corner_pairs = np.concatenate([corners, corners + sides], 1)
    sample = DetDataSample(
        metainfo={
            "img_shape": size,
            "ori_shape": size,
            "pad_shape": size,
            "batch_input_shape": size,
            "scale_factor": (1.0, 1.0),
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(corner_pairs.astype(np.float32)),
        labels=torch.from_numpy(random.integers(0, 80, boxes)),
    )
    if with_masks:
        masks = np.zeros((boxes, height, width), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, corner_pairs.astype(int), strict=True):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks, height, width)
    picture = torch.from_numpy(random.integers(0, 255, (3, height, width), np.uint8))
    return {"inputs": [picture], "data_samples": [sample]}


def train_step(model: Any, batch: dict[str, Any]) -> None:
    """Forward, losses, backward."""
    model.train().zero_grad()
    data = model.data_preprocessor(batch, training=True)
    losses, _ = model.parse_losses(model(**data, mode="loss"))
    losses.backward()


def predict(model: Any, batch: dict[str, Any]) -> None:
    """One picture to detections."""
    with torch.no_grad():
        model.eval().test_step(batch)


def compare(name: str, functions: ModuleType, repeats: int) -> list[str]:
    """The table's rows of one detector."""
    config, size = DETECTORS[name]
    model = detector(config)
    rows = []
    for label, step in (("training step", train_step), ("inference", predict)):
        least = {"ours": float("inf"), "compiled": float("inf")}
        for repeat in range(repeats + 1):
            for side in least:
                batch = example(size, with_masks=model.with_mask)
                start = perf_counter()
                if side == "ours":
                    step(model, batch)
                else:
                    with compiled_ops(functions):
                        step(model, batch)
                if repeat:  # the first compiles and fills caches
                    least[side] = min(least[side], perf_counter() - start)
        ratio = least["compiled"] / least["ours"]
        rows.append(f"| {name} | {label} | {least['compiled']:.2f} | {least['ours']:.2f} | {ratio:.2f} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_extension(parser)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    functions = load_extension(arguments.extension)
    names = [name for name in DETECTORS if name.startswith(tuple(arguments.only))]
    header = [
        f"{platform.machine()}, torch {torch.__version__}, {arguments.threads} threads; seconds, a picture.",
        "",
        "| detector | what | compiled | opsin | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = [row for name in names for row in compare(name, functions, arguments.repeats)]
    if arguments.out:
        arguments.out.write_text("\n".join([*header, *rows]) + "\n")


if __name__ == "__main__":
    main()
