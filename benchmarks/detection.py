"""RetinaNet and Faster R-CNN on blood smears: plain, with RelationNet++'s relation, with SDANet's attention.

    opsin train retinanet_convnext_bccd --data DATA/bccd --work-dir PLAIN
    python benchmarks/detection.py DATA/bccd PLAIN/epoch_28.pth [--seeds 0 1 2] [--json RUNS.json]

No weights can be downloaded here, so all settings share the backbone of one plain RetinaNet that was trained
on the same pictures, frozen; pyramid, heads and modules start new and are trained for equally many
iterations at 256 x 192. Measured on the split `val`: AP50 and AP, mean and standard deviation over the
seeds, and CPU time of a training step and of a picture. Runs that RUNS.json has are not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opsin.core.engine.config import load_config
from opsin.core.engine.runner import train

DETECTORS = {"RetinaNet": "retinanet", "Faster R-CNN": "faster_rcnn"}
MODULES = {"plain": "convnext", "relation": "bvr", "attention": "sdanet"}
SIZE = {"height": 192, "width": 256}
RATE, WARM_UP = 2e-3, 20  # for a tenth of the configs' own schedule

Run = dict[str, Any]


def configured(detector: str, module: str, data: Path, backbone: Path, seed: int, epochs: int) -> Any:
    """The config of a setting, for smaller pictures, a backbone that is given, and a shorter schedule."""
    cfg = load_config(
        f"{DETECTORS[detector]}_{MODULES[module]}_bccd",
        data=data,
        overrides=[
            f"randomness.seed={seed}",
            "train_dataloader.num_workers=0",
            "train_dataloader.persistent_workers=False",
            f"train_cfg.max_epochs={epochs}",
            f"optim_wrapper.optimizer.lr={RATE}",
            f"param_scheduler.0.end={WARM_UP}",
            f"param_scheduler.1.T_max={epochs}",
            f"default_hooks.checkpoint.interval={epochs}",
        ],
    )
    cfg.train_cfg.val_begin = epochs + 1  # measured, and timed, when training is over
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline[2].transforms[0].update(SIZE)
    source = {"type": "Pretrained", "checkpoint": str(backbone), "prefix": "backbone."}
    cfg.model.backbone.update(init_cfg=source, frozen_stages=len(cfg.model.backbone.arch.depths))
    return cfg


def learn(detector: str, module: str, data: Path, backbone: Path, seed: int, epochs: int) -> Run:
    """One run: its scores and its CPU seconds a step and a picture."""
    cfg = configured(detector, module, data, backbone, seed, epochs)
    with tempfile.TemporaryDirectory() as work_dir:
        start = time.process_time()
        runner = train(cfg, work_dir)
        trained = time.process_time() - start
        start = time.process_time()
        scores = runner.val_loop.run()
        tested = time.process_time() - start
    return {
        "detector": detector,
        "module": module,
        "seed": seed,
        "epochs": epochs,
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "step_s": trained / runner.iter,
        "picture_s": tested / len(runner.val_dataloader.dataset),
        "AP50": scores["coco/bbox_mAP_50"],
        "AP": scores["coco/bbox_mAP"],
        "AP50 by class": {k.split("/")[-1]: v for k, v in scores.items() if "mAP_50/" in k},
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation, of several values."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.3f}"


def table(runs: list[Run]) -> str:
    """Markdown; differences to the plain detector are those of the same seed."""
    lines = [
        "| detector | module | parameters | step, s | picture, s | AP50 | AP | AP less plain |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for detector, module in product(DETECTORS, MODULES):
        own = {run["seed"]: run for run in runs if (run["detector"], run["module"]) == (detector, module)}
        plain = {run["seed"]: run for run in runs if (run["detector"], run["module"]) == (detector, "plain")}
        if not own:
            continue
        gains = [own[seed]["AP"] - plain[seed]["AP"] for seed in own if seed in plain]
        cells = [
            detector,
            module,
            f"{next(iter(own.values()))['parameters'] / 1e6:.2f} M",
            *(f"{np.mean([run[key] for run in own.values()]):.3f}" for key in ("step_s", "picture_s")),
            *(spread([run[key] for run in own.values()]) for key in ("AP50", "AP")),
            "" if module == "plain" or not gains else spread(gains),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, trains what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone", type=Path, help="checkpoint of retinanet_convnext_bccd")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("bccd_runs.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs: list[Run] = json.loads(given.json.read_text()) if given.json.exists() else []
    done = {(run["detector"], run["module"], run["seed"], run["epochs"]) for run in runs}
    for seed, detector, module in product(given.seeds, DETECTORS, MODULES):
        if (detector, module, seed, given.epochs) not in done:
            runs.append(learn(detector, module, given.data, given.backbone, seed, given.epochs))
            given.json.write_text(json.dumps(runs, indent=1) + "\n")
    print(table([run for run in runs if run["epochs"] == given.epochs]))


if __name__ == "__main__":
    main()
