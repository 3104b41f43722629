"""Medical networks at an equal budget of CPU time on real data, mean and spread over seeds.

    python benchmarks/medical.py segment membrane --data DATA/membrane [--seconds 60] [--seeds 3]
    python benchmarks/medical.py segment mni152
    python benchmarks/medical.py cells --data DATA/bccd

`segment` trains MHS-VM (tiny), multi-scale attention (tiny) and MONAI's U-Net from scratch, by their configs'
model, data and augmentation, each for as many seconds of CPU time on one thread (reading included), and gives
Dice of every class on the validation split. `cells` does so with MedViTV2-T on the cells of BCCD, beside a
linear classifier of the same crops.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from opsin.core.engine.config import build_model, load_config
from opsin.registry import DATASETS

NETWORKS = {
    "MHS-VM, tiny": "mhs_vm_tiny",
    "multi-scale attention, tiny": "multi_scale_attention_tiny",
    "MONAI U-Net": "unet",
}
RATE = {"segment": 4e-3, "cells": 5e-4}
LINEAR_SIDE = 16  # pixels to which crops are reduced for the linear classifier


def train(model: BaseModel, data: Any, batch: int, rate: float, seconds: float) -> int:
    """Trains by AdamW for `seconds` of CPU time, the rate falling to 0 as a cosine; gives the steps."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    start, steps, spent = time.process_time(), 0, 0.0
    order: list[int] = []
    while spent < seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + np.cos(np.pi * spent / seconds)) / 2
        if len(order) < batch:
            order = [*order, *np.random.permutation(len(data)).tolist()]
        chosen, order = order[:batch], order[batch:]
        inputs = model.data_preprocessor(pseudo_collate([data[i] for i in chosen]), True)
        losses = model(**inputs, mode="loss")
        optimizer.zero_grad()
        torch.stack([value for key, value in losses.items() if "loss" in key]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps, spent = steps + 1, time.process_time() - start
    return steps


def trained(cfg: Config, seed: int, rate: float, seconds: float) -> tuple[BaseModel, int]:
    """The model of a config after `seconds` of training, in evaluation mode, and its steps."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    data = DATASETS.build(cfg.train_dataloader.dataset)
    model = build_model(cfg).train()
    steps = train(model, data, cfg.train_dataloader.batch_size, rate, seconds)
    return model.eval(), steps


@torch.no_grad()
def dice(model: BaseModel, data: Any, classes: int) -> list[float]:
    """Dice of every class over all pixels of `data`."""
    counts = np.zeros((classes, 2))
    for index in range(len(data)):
        sample = model.test_step(pseudo_collate([data[index]]))[0]
        found, true = sample.pred_label.numpy(), sample.gt_label.numpy()
        for label in range(classes):
            a, b = found == label, true == label
            counts[label] += (2 * (a & b).sum(), a.sum() + b.sum())
    return (counts[:, 0] / counts[:, 1]).tolist()


def segment(name: str, folder: Path | None, seconds: float, seeds: int) -> None:
    """Prints the table of one data set."""
    print("| network | parameters | steps | Dice … |\n| --- | --- | --- | --- |")
    for title, network in NETWORKS.items():
        cfg = load_config(f"{network}_{name}", data=folder)
        held_out = DATASETS.build(cfg.val_dataloader.dataset)
        rows, steps = [], []
        for seed in range(seeds):
            model, made = trained(cfg, seed, RATE["segment"], seconds)
            steps.append(made)
            rows.append(dice(model, held_out, len(cfg.classes)))
            print(f"seed {seed}", cfg.classes, [round(d, 4) for d in rows[-1]], flush=True)
        print(f"| {title} | {millions(model)} | {np.mean(steps):.0f} | {spread(rows)} |", flush=True)


@torch.no_grad()
def balanced(model: BaseModel, data: Any, batch: int = 48) -> tuple[float, float]:
    """Accuracy, and the mean recall of the classes."""
    found, true = [], []
    for start in range(0, len(data), batch):
        samples = [data[i] for i in range(start, min(start + batch, len(data)))]
        results = model.test_step(pseudo_collate(samples))
        found += [int(result.pred_scores.argmax()) for result in results]
        true += [int(result.gt_label) for result in results]
    return float(np.mean(np.equal(found, true))), float(balanced_accuracy_score(true, found))


def reduced(data: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The crops of a data set as vectors of `LINEAR_SIDE`² colours, and their labels."""
    crops = torch.stack([data[i]["inputs"].float() for i in range(len(data))])
    small = torch.nn.functional.adaptive_avg_pool2d(crops, LINEAR_SIDE)
    return small.flatten(1).numpy(), np.array(
        [int(data[i]["data_samples"].gt_label) for i in range(len(data))]
    )


def cells(folder: Path, seconds: float, seeds: int) -> None:
    """Prints the table of MedViTV2-T and of the linear classifier."""
    cfg = load_config("medvitv2_tiny_bccd", data=folder)
    init_default_scope("opsin")
    held_out = DATASETS.build(cfg.val_dataloader.dataset)
    print("| classifier | parameters | steps | accuracy | mean recall |\n| --- | --- | --- | --- | --- |")
    plain = DATASETS.build(cfg.train_dataloader.dataset | {"pipeline": cfg.val_dataloader.dataset.pipeline})
    (x, y), (x_test, y_test) = reduced(plain), reduced(held_out)
    scale = StandardScaler().fit(x)
    linear = LogisticRegression(C=0.01, max_iter=1000).fit(scale.transform(x), y)
    answers = linear.predict(scale.transform(x_test))
    accuracy, recall = float((answers == y_test).mean()), balanced_accuracy_score(y_test, answers)
    print(f"| linear | {linear.coef_.size} | – | {accuracy:.3f} | {recall:.3f} |", flush=True)
    print(f"{len(y)} crops to train on {np.bincount(y)}, {len(y_test)} held out {np.bincount(y_test)}")
    rows, steps = [], []
    for seed in range(seeds):
        model, made = trained(cfg, seed, RATE["cells"], seconds)
        steps.append(made)
        rows.append(balanced(model, held_out))
        print(f"seed {seed}", rows[-1], flush=True)
    print(f"| MedViTV2-T | {millions(model)} | {np.mean(steps):.0f} | {spread(rows)} |", flush=True)


def millions(model: BaseModel) -> str:
    """How many parameters a model has."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"


def spread(rows: list[Any]) -> str:
    """Mean and standard deviation of each column, as cells of a table."""
    table = np.array(rows)
    deviation = table.std(0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1])
    return " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(0), deviation, strict=True))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    segmenting, sorting = commands.add_parser("segment"), commands.add_parser("cells")
    segmenting.add_argument("name", choices=("membrane", "mni152"))
    for command in (segmenting, sorting):
        command.add_argument("--data", type=Path)
        command.add_argument("--seconds", type=float, default=60.0)
        command.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "segment":
        segment(given.name, given.data, given.seconds, given.seeds)
    else:
        cells(given.data, given.seconds, given.seeds)


if __name__ == "__main__":
    main()
