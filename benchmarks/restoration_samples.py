"""The sample configs of metalens and cloud removal against what people do without a network.

    opsin samples metalens DATA
    python benchmarks/restoration_samples.py metalens DATA [--rates 1e-3 2e-3] [--trial 25] [--length N]
    opsin samples cloud_removal DATA
    python benchmarks/restoration_samples.py cloud_removal DATA [--rates 3e-3 1e-2] [--trial 3] [--length N]

Whatever can be chosen is chosen on the validation pictures: the learning rate by trainings of a trial's
length, and the penalty of the single Wiener filter, which is the same for all pictures. The test pictures,
cut out of other photographs, are measured once, at the end. Lengths are iterations for metalens and epochs of
12 iterations for cloud removal; `--length` is the config's own unless it is given.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test, train
from opsin.registry import DATASETS
from opsin.restoration.cloud_removal.metrics import CloudRemovalMetric
from opsin.restoration.metalens.datasets import Lens, SimulateMetalens
from opsin.restoration.metalens.metrics import MetalensMetric
from opsin.restoration.metalens.optics import wiener

Table = dict[str, dict[str, float]]
PENALTIES = np.logspace(-5, 0, 41)
CONFIGS = {
    "metalens": ("acformer_tiny_samples", "train_cfg.max_iters", "param_scheduler.1.end", "iter"),
    "cloud_removal": ("pmaa_tiny_samples", "train_cfg.max_epochs", "param_scheduler.0.T_max", "epoch"),
}
RATES = {"metalens": (1e-3, 2e-3), "cloud_removal": (3e-3, 1e-2)}
TRIALS = {"metalens": 25, "cloud_removal": 3}
DECIDES = {"metalens": "metalens/psnr_y", "cloud_removal": "cloud/psnr"}


def config(task: str, data: Path, rate: float, length: int | None) -> tuple[Config, str]:
    """The sample config with a learning rate and a length, and its last checkpoint's name."""
    name, limit, schedule, unit = CONFIGS[task]
    overrides = [f"optim_wrapper.optimizer.lr={rate}"]
    for loader in ("train", "val", "test"):
        overrides += [f"{loader}_dataloader.num_workers=0", f"{loader}_dataloader.persistent_workers=False"]
    if length:
        overrides += [f"{limit}={length}", f"{schedule}={length}"]
    cfg = load_config(name, data=data, overrides=overrides)
    length = int(cfg.train_cfg[limit.split(".")[1]])
    cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = length
    return cfg, f"{unit}_{length}.pth"


def reached(
    task: str, data: Path, rate: float, length: int | None, splits: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """What a training reaches on each of `splits`, and its minutes of CPU time as `minutes`."""
    cfg, checkpoint = config(task, data, rate, length)
    loaders = {split: cfg[f"{split}_dataloader"] for split in splits}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        train(cfg, work)
        minutes = (time.process_time() - start) / 60
        found = {"training": {"minutes": minutes}}
        for split in splits:
            cfg.test_dataloader = loaders[split]
            found[split] = test(cfg, Path(work) / checkpoint, work_dir=Path(work) / split)
    return found


def items(cfg: Config, split: str) -> list[dict[str, Any]]:
    """The packed pictures of a split."""
    return list(DATASETS.build(cfg[f"{split}_dataloader"].dataset))


def measured(metric: Any, pictures: list[dict[str, Any]]) -> dict[str, float]:
    """The metric's means over samples that have `pred_img`."""
    for picture in pictures:
        metric.process(None, [picture])
    return metric.compute_metrics(metric.results)


def metalens_baselines(data: Path) -> Table:
    """The raw picture, the middle filter, and the single filters with the best penalty on val and on test."""
    cfg, _ = config("metalens", data, 1e-3, None)
    pipelines = [DATASETS.build(cfg[f"{s}_dataloader"].dataset) for s in ("val", "test")]
    val, held_out = (noisy_patches(dataset) for dataset in pipelines)

    def with_penalty(seen: list[tuple[Lens, Tensor, dict[str, Any]]], penalty: float) -> dict[str, float]:
        pictures = []
        for lens, noisy, sample in seen:
            picture = lens.grid.joined(wiener(noisy[None], lens.otf, penalty))[0]
            pictures.append(sample | dict(pred_img=picture))
        return measured(MetalensMetric(), pictures)

    def best(seen: list[tuple[Lens, Tensor, dict[str, Any]]]) -> float:
        return max(PENALTIES, key=lambda penalty: with_penalty(seen, penalty)["psnr_y"])

    chosen, oracle = best(val), best(held_out)
    raw = measured(MetalensMetric(), [sample | dict(pred_img=sample["raw_img"]) for *_, sample in held_out])
    middle = {name: raw[f"wiener_{name}"] for name in ("psnr_y", "psnr_rgb", "ssim")}
    return {
        "what the sensor saw": raw,
        "middle Wiener filter of the bank": middle,
        f"single Wiener filter, K {chosen:.1e} chosen on val": with_penalty(held_out, chosen),
        f"single Wiener filter, K {oracle:.1e} chosen on test itself": with_penalty(held_out, oracle),
    }


def noisy_patches(dataset: Any) -> list[tuple[Lens, Tensor, dict[str, Any]]]:
    """For each picture the lens, what its positions saw, and the sample, with the noise of the pipeline."""
    simulate = next(t for t in dataset.pipeline.transforms if isinstance(t, SimulateMetalens))
    load = dataset.pipeline.transforms[0]
    seen = []
    for index in range(len(dataset)):
        info = load(dataset.get_data_info(index))
        scene, _ = simulate.scene(info["img"], info["img_path"])
        noisy = simulate.lens.photograph(scene, torch.Generator().manual_seed(0))
        seen.append((simulate.lens, noisy, dataset[index]["data_samples"].to_dict()))
    return seen


def cloud_baselines(data: Path) -> Table:
    """Composites: the middle and the least of each pixel's three values."""
    cfg, _ = config("cloud_removal", data, 1e-3, None)
    composites: dict[str, Callable[[Tensor], Any]] = {
        "median of the three dates": lambda dates: np.sort(dates.numpy(), axis=0)[1],
        "darkest of the three dates": lambda dates: dates.numpy().min(0),
    }
    found = {}
    for name, composite in composites.items():
        pictures = [
            item["data_samples"].to_dict() | dict(pred_img=torch.from_numpy(composite(item["inputs"])))
            for item in items(cfg, "test")
        ]
        found[name] = measured(CloudRemovalMetric(), pictures)
    return found


BASELINES = {"metalens": metalens_baselines, "cloud_removal": cloud_baselines}


def main() -> None:
    """Reads the command line, chooses, trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=CONFIGS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--trial", type=int)
    parser.add_argument("--length", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, metric = given.task, DECIDES[given.task]
    rates = given.rates or RATES[task]
    trials = dict.fromkeys(rates, 0.0)
    for rate in rates if len(rates) > 1 else ():
        found = reached(task, given.data, rate, given.trial or TRIALS[task], ("val",))
        trials[rate] = found["val"][metric]
        print(f"val, rate {rate:g}: {trials[rate]:.2f}, {found['training']['minutes']:.1f} min", flush=True)
    rate = max(trials, key=lambda rate: trials[rate])
    found = reached(task, given.data, rate, given.length, ("val", "test"))
    prefix = metric.split("/")[0]
    network = {name.removeprefix(f"{prefix}/"): value for name, value in found["test"].items()}
    columns = [name for name in network if not name.startswith("wiener_")]
    minutes = found["training"]["minutes"]
    table = BASELINES[task](given.data) | {f"network, rate {rate:g}, {minutes:.1f} min": network}
    print(f"val: {found['val']}\n| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3f}' for column in columns)} |")


if __name__ == "__main__":
    main()
