"""Three decoders on three opsin backbones at an equal budget of CPU time, on real data; and what they cost.

    python benchmarks/segmentation.py learn DATA [--sets camvid] [--seconds 90] [--decoders …] [--backbones …]
    python benchmarks/segmentation.py cost DECODER BACKBONE [--side 512]

DATA holds `camvid/` and `membrane/`. The configs are opsin's own `DECODER_convnext_{camvid,membrane}`; what
changes is the backbone, the number of iterations (as many as fit into the seconds, by the clock of the first
few), and the size: four crops of 160x160 of CamVid at half size and of the membranes in full size. Everything
runs in one process and thread. `cost` gives one training step and one prediction for a picture; one process
each, as memory counts the most that a process has had.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.structures import PixelData
from skimage.measure import label
from skimage.metrics import variation_of_information

from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.measure import peak_memory
from opsin.core.engine.runner import train
from opsin.registry import HOOKS, METRICS
from opsin.segmentation.promptable.metrics.mask_iou import boundary, mask_iou

DECODERS = ("upernet", "mask2former", "panoptic_segformer")
DIMS = (32, 64, 128, 256)
BACKBONES: dict[str, dict[str, Any]] = {
    "ConvNeXt": dict(type="opsin.ConvNeXt", arch=dict(depths=(2, 2, 4, 2), dims=DIMS), drop_path_rate=0.1),
    "VAN": dict(
        type="opsin.VAN",
        arch=dict(embed_dims=DIMS, depths=(2, 2, 4, 2), mlp_ratios=(4, 4, 4, 4)),
        drop_path_rate=0.1,
    ),
    "DaViT": dict(
        type="opsin.DaViT",
        arch=dict(
            depths=(1, 1, 2, 1),
            embed_dims=DIMS,
            num_heads=(1, 2, 4, 8),
            window_size=5,
            overlapped_patch=False,
        ),
        drop_path_rate=0.1,
    ),
}
CROP, BATCH = 160, 4
PROBED = 8  # iterations that tell how many fit, the first two not counted
MEMBRANE = 0


@HOOKS.register_module()
class ProbeTime(Hook):
    """CPU seconds of an iteration, loading and augmentation included."""

    seconds = 0.0

    def after_train_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        """Starts the clock after the second iteration, reads it after the last."""
        if batch_idx == 1:
            self.start = time.process_time()
        if batch_idx == PROBED - 1:
            ProbeTime.seconds = (time.process_time() - self.start) / (PROBED - 2)


@METRICS.register_module()
class Membranes(BaseMetric):
    """Boundary IoU of the membranes, and variation of information of the cells that they part, in bits.

    Cells are connected regions (4 neighbours) of what is no membrane; pixels that are membrane in the truth
    do not count. `split` is what of the truth is cut up, `merge` what is joined.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures a batch."""
        for sample in data_samples:
            maps = (sample[name]["data"].squeeze().numpy() for name in ("pred_sem_seg", "gt_sem_seg"))
            found, wanted = ((labels == MEMBRANE) for labels in maps)
            edges = mask_iou(
                boundary(found, 2 / np.hypot(*found.shape)), boundary(wanted, 2 / np.hypot(*wanted.shape))
            )
            cells = (label(~membrane, connectivity=1) for membrane in (wanted, found))
            split, merge = variation_of_information(*cells, ignore_labels=(0,))
            self.results.append((100 * edges, split, merge))

    def compute_metrics(self, results: list[tuple[float, ...]]) -> dict[str, float]:
        """Means over the slices."""
        return dict(zip(("boundary_iou", "split", "merge"), np.mean(results, 0).tolist(), strict=True))


def experiment(decoder: str, backbone: str, dataset: str, data: Path) -> Config:
    """The config of one run, all but its length."""
    cfg = load_config(f"{decoder}_convnext_{dataset}", data=data / dataset)
    cfg.model.backbone = {
        **BACKBONES[backbone],
        "out_indices": cfg.model.backbone.get("out_indices", (0, 1, 2, 3)),
    }
    cfg.train_dataloader.batch_size = BATCH
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    read, masks, augment, *pack = cfg.train_dataloader.dataset.pipeline
    for transform in augment.transforms:
        if transform.type == "RandomCrop":
            transform.update(height=CROP, width=CROP)
    if dataset == "camvid":
        half = dict(type="opsin.Albumentations", transforms=[dict(type="Resize", height=180, width=240)])
        masks, augment = [masks, half], [augment]
        cfg.train_dataloader.dataset.pipeline = [read, *masks, *augment, *pack]
        load, *rest = cfg.val_dataloader.dataset.pipeline
        cfg.val_dataloader.dataset.pipeline = [load, half, *rest]  # compared in the masks' own size
    if dataset == "membrane":
        cfg.val_evaluator = [cfg.val_evaluator, dict(type="opsin.Membranes")]
    if "size" in cfg.model.get("data_preprocessor", {}):
        cfg.model.data_preprocessor.size = (CROP, CROP)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.randomness = dict(seed=0)
    cfg.default_hooks.logger.interval = 50
    return cfg


def of_length(cfg: Config, iterations: int) -> Config:
    """The config with so many iterations, measured once, after the last."""
    cfg = cfg.copy()
    cfg.train_cfg.update(max_iters=iterations, val_interval=10 * iterations)
    cfg.param_scheduler[0].end = cfg.param_scheduler[1].begin = min(20, iterations // 2)
    cfg.param_scheduler[1].end = iterations
    cfg.default_hooks.checkpoint.update(interval=iterations, save_best=None)
    return cfg


def learn(decoder: str, backbone: str, dataset: str, data: Path, seconds: float) -> str:
    """One row of the table."""
    cfg = experiment(decoder, backbone, dataset, data)
    with TemporaryDirectory() as folder:
        probe = of_length(cfg, PROBED)
        probe.custom_hooks = [dict(type="opsin.ProbeTime")]
        train(probe, Path(folder) / "probe")
        iterations = round(seconds / ProbeTime.seconds)
        work_dir, start = Path(folder) / "run", time.process_time()
        runner = train(of_length(cfg, iterations), work_dir)
        spent = time.process_time() - start
    parameters = sum(p.numel() for p in runner.model.parameters()) / 1e6
    names = ["mIoU", "aAcc"] + ["boundary_iou", "split", "merge"] * (dataset == "membrane")
    found = [f"{runner.message_hub.get_scalar(f'val/{name}').current():.2f}" for name in names]
    cells = [dataset, decoder, backbone, f"{parameters:.2f} M", str(iterations), f"{spent:.0f} s", *found]
    return f"| {' | '.join(cells)} |"


def sample_of(side: int, classes: int, things: int | None) -> tuple[torch.Tensor, Any]:
    """A picture of noise with nine rectangles of classes, as the decoder's pipeline packs it."""
    labels = torch.arange(9).remainder(classes).view(3, 3).repeat_interleave(side // 3 + 1, 0)
    labels = labels.repeat_interleave(side // 3 + 1, 1)[:side, :side]
    meta = {"img_shape": (side, side), "ori_shape": (side, side), "scale_factor": (1.0, 1.0)}
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    if things is None:
        from mmseg.structures import SegDataSample

        return image, SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels[None]))
    from opsin.segmentation.panoptic.datasets import PackPanoptic, RegionsAsObjects

    results = {"img": image.permute(1, 2, 0).numpy(), "gt_seg_map": labels.numpy().astype(np.uint8), **meta}
    packed = PackPanoptic().transform(RegionsAsObjects(things).transform(results))
    return packed["inputs"], packed["data_samples"]


def cost(decoder: str, backbone: str, side: int) -> str:
    """One row: seconds and megabytes of a training step and of a prediction, each for a megapixel."""
    cfg = load_config(f"{decoder}_convnext_camvid")
    cfg.model.backbone = {
        **BACKBONES[backbone],
        "out_indices": cfg.model.backbone.get("out_indices", (0, 1, 2, 3)),
    }
    if "size" in cfg.model.get("data_preprocessor", {}):
        cfg.model.data_preprocessor.size = (side, side)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    image, sample = sample_of(side, 11, 3 if decoder == "panoptic_segformer" else None)

    def predict() -> None:
        with torch.inference_mode():
            model.eval().test_step({"inputs": [image], "data_samples": [sample.clone()]})

    def step() -> None:
        model.train().zero_grad()
        data = model.data_preprocessor(
            {"inputs": [image] * 2, "data_samples": [sample.clone(), sample.clone()]}, True
        )
        losses, _ = model.parse_losses(model(**data, mode="loss"))
        losses.backward()

    cells, before = [], peak_memory()
    for run, pictures in ((predict, 1), (step, 2)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        megapixels = pictures * side * side / 1e6
        added = (peak_memory() - before) / 2**20
        cells.append(f"{min(times) / megapixels:.2f} s | {added / megapixels:.0f} MB")
    return f"| {decoder} | {backbone} | {' | '.join(cells)} |"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("learn")
    learning.add_argument("data", type=Path)
    learning.add_argument("--sets", nargs="+", default=["camvid"], choices=["camvid", "membrane"])
    learning.add_argument("--decoders", nargs="+", default=list(DECODERS), choices=DECODERS)
    learning.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    learning.add_argument("--seconds", type=float, default=90.0)
    costing = commands.add_parser("cost")
    costing.add_argument("decoder", choices=DECODERS)
    costing.add_argument("backbone", choices=list(BACKBONES))
    costing.add_argument("--side", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "cost":
        print(cost(given.decoder, given.backbone, given.side))
        return
    for dataset in given.sets:
        for backbone in given.backbones:
            for decoder in given.decoders:
                print(learn(decoder, backbone, dataset, given.data, given.seconds), flush=True)


if __name__ == "__main__":
    main()
