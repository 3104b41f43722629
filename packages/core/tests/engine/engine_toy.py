"""A data set, a model and a metric small enough to train in a blink, with randomness of every kind."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath
from opsin.registry import DATASETS, HOOKS, METRICS, MODELS


@DATASETS.register_module()
class ToyVectors(BaseDataset):
    """`size` vectors of 6 numbers and their class; augmented with noise from three generators."""

    def __init__(self, size=48, noise=0.1, broken=(), nan=(), classes=("a", "b", "c"), **kwargs):
        self.size, self.noise, self.broken, self.nan = size, noise, broken, nan
        super().__init__(metainfo={"classes": tuple(classes)}, **kwargs)

    def load_data_list(self):
        rows = np.random.default_rng(7).normal(size=(self.size, 6)).astype(np.float32)
        return [
            {
                "vector": row,
                "label": int(row[:3].argmax()),
                "img_path": f"pictures/{i}.png",
                "width": 2 + i % 3,
                "height": 3,
            }
            for i, row in enumerate(rows)
        ]

    def prepare_data(self, index):
        info = self.get_data_info(index)
        if index in self.broken:
            raise UserError(f"{info['img_path']} is truncated")
        noise = np.array([random.gauss(0, 1), np.random.normal(), torch.randn(()).item()] * 2, np.float32)
        vector = info["vector"] + self.noise * noise
        if index in self.nan:
            vector[:] = np.nan
        return {
            "inputs": torch.from_numpy(vector.astype(np.float32)),
            "label": info["label"],
            "img_path": info["img_path"],
        }


@MODELS.register_module()
class ToyModel(BaseModel):
    """A multilayer perceptron with dropout and drop path; without batch norm."""

    def __init__(self, width=16, num_classes=3, drop=0.2, **kwargs):
        super().__init__(**kwargs)
        self.stem = nn.Linear(6, width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(drop))
        self.drop_path = DropPath(drop)
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs, label=None, img_path=None, mode="tensor"):
        x = torch.stack(list(inputs))
        x = self.stem(x)
        x = self.head(x + self.drop_path(self.block(x)))
        if mode == "loss":
            return {"loss_cls": nn.functional.cross_entropy(x.float(), torch.as_tensor(label))}
        if mode == "predict":
            return [{"score": row, "label": int(target)} for row, target in zip(x, label, strict=True)]
        return x


@METRICS.register_module()
class ToyAccuracy(BaseMetric):
    """The fraction of right classes, and the summed scores, which tell two models apart."""

    def process(self, data_batch, data_samples):
        self.results += [
            (int(s["score"].argmax()) == s["label"], float(s["score"].sum())) for s in data_samples
        ]

    def compute_metrics(self, results):
        return {
            "acc": sum(r for r, _ in results) / len(results),
            "score": sum(s for _, s in results),
            "note": "text",
        }


@HOOKS.register_module()
class KillAt(Hook):
    """Kills the process with SIGKILL before iteration `step` (counted from 0)."""

    def __init__(self, step):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class SleepAt(Hook):
    """Leaves a mark in the work dir and sleeps before iteration `step`."""

    def __init__(self, step):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            Path(runner.work_dir, "asleep").touch()
            time.sleep(60)


@HOOKS.register_module()
class Losses(Hook):
    """Keeps each step's loss as it is logged."""

    priority = "LOW"

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs["loss"].item())


def loader(shuffle=True, workers=0, batch_size=4, **dataset):
    """A data loader's config."""
    return dict(
        dataset=dict(type="opsin.ToyVectors", **dataset),
        sampler=dict(type="DefaultSampler", shuffle=shuffle),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def config(**changes):
    """Three epochs of twelve iterations; `changes` replace whole entries."""
    cfg = dict(
        default_scope="opsin",
        model=dict(type="ToyModel"),
        train_dataloader=loader(),
        val_dataloader=loader(shuffle=False),
        test_dataloader=loader(shuffle=False),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=dict(type="ToyAccuracy"),
        test_evaluator=dict(type="ToyAccuracy"),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=10),
            dict(type="CosineAnnealingLR", T_max=3, by_epoch=True),
        ],
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5, max_keep_ckpts=2)
        ),
        randomness=dict(seed=0, deterministic=True),
        visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
    )
    # yapf, which would format it into each checkpoint, is slow
    return Config({**cfg, **changes}, format_python_code=False)


def weights(path):
    """A checkpoint's tensors by name: the model's, the averaged model's and the optimizer's."""
    content = torch.load(path, weights_only=True)
    found = {**content["state_dict"], **{f"ema.{k}": v for k, v in content.get("ema_state_dict", {}).items()}}
    for number, state in content["optimizer"]["state"].items():
        found |= {
            f"optimizer.{number}.{name}": value for name, value in state.items() if torch.is_tensor(value)
        }
    return found


if __name__ == "__main__":  # python engine_toy.py CONFIG WORK_DIR [--resume]
    from opsin.core.engine.runner import train

    try:
        train(Config.fromfile(sys.argv[1]), sys.argv[2], resume="--resume" in sys.argv)
    except UserError as error:
        sys.exit(f"UserError: {error}")
