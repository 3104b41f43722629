"""Stock configs of the mmdet and mmseg wheels, made small, on a Runner: train, test, save, resume, train.

Small are pictures, channels, queries, layers and proposals; every type, loss, hook and loop stays stock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor

from opsin.core import compat
from opsin.core.engine.config import find_config, set_data_root
from opsin.core.engine.runner import Runner

# Pictures and crops are a tenth as wide and high as the configs say, in whole strides of the coarsest stage.
SHRINK = 10
STRIDE = 32
SIZE_KEYS = {"scale", "scales", "img_scale", "crop_size", "size"}
# Bottleneck ResNet of 8 instead of 64 base channels: the stages give an eighth of 256, 512, 1024, 2048.
BASE_CHANNELS = 8
# Everything a random network could find is let through, but only so much of it.
LIMITS = {
    "score_thr": 0.0,
    "nms_pre": 40,
    "max_per_img": 20,
    "max_per_image": 5,
    "num_queries": 20,
    "num_dn_queries": 10,
    "feedforward_channels": 64,
}


def small_config(name: str, data_root: Path, work_dir: Path, changes: Mapping[str, Any]) -> Config:
    """The stock config `mmdet::…` or `mmseg::…`, reading `data_root` and made small.

    Args:
        changes: what is left to make smaller in this one, as `key.path: value`.
    """
    compat.apply()
    stock = Config.fromfile(find_config(name))
    # Layout by yapf takes longer than the training; `Config.fromfile` has the same option and ignores it.
    cfg = Config(stock._cfg_dict, filename=stock.filename, format_python_code=False)
    set_data_root(cfg, data_root)
    _visit(cfg._cfg_dict, _without_pretrained)
    _visit(cfg.model, _limited)
    for place in ("train_dataloader", "val_dataloader", "test_dataloader"):
        _visit(cfg[place], _shrunk)
    _visit([cfg.model.data_preprocessor, cfg.get("custom_hooks", [])], _shrunk)
    for place in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[place].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2
    if cfg.model.backbone.type in ("ResNet", "ResNetV1c"):
        _thin_resnet(cfg.model)
    if "neck" in cfg.model and cfg.model.neck.type == "FPN":
        _visit(cfg.model, _narrow)
    cfg.merge_from_dict(dict(changes))
    cfg.default_hooks.checkpoint.update(interval=1)
    cfg.default_hooks.logger.update(interval=1)
    cfg.train_cfg.val_begin = 1000
    cfg.work_dir = str(work_dir)
    cfg.randomness = {"seed": 0}
    cfg.log_level = "ERROR"
    return cfg


def _visit(node: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """Calls `change` on every dict in `node`, outermost first."""
    if isinstance(node, dict):
        change(node)
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list, tuple)):
            _visit(child, change)


def _without_pretrained(node: dict[str, Any]) -> None:
    if isinstance(node.get("init_cfg"), dict) and node["init_cfg"].get("type") == "Pretrained":
        node["init_cfg"] = None
    if isinstance(node.get("pretrained"), str):
        node["pretrained"] = None


def _limited(node: dict[str, Any]) -> None:
    node.update({key: value for key, value in LIMITS.items() if key in node})


def _shrunk(node: dict[str, Any]) -> None:
    for key in SIZE_KEYS & node.keys():
        node[key] = _smaller(node[key])


def _smaller(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_smaller(item) for item in value)
    return math.ceil(value / SHRINK / STRIDE) * STRIDE if isinstance(value, int) else value


def _thin_resnet(model: dict[str, Any]) -> None:
    """Thins the backbone and tells those that read its stages."""
    model["backbone"].update(base_channels=BASE_CHANNELS, stem_channels=BASE_CHANNELS)
    for name in ("neck", "panoptic_head", "decode_head", "auxiliary_head"):
        part = model.get(name)
        if part and "in_channels" in part:
            wide = part["in_channels"]
            part["in_channels"] = [c // 8 for c in wide] if isinstance(wide, (list, tuple)) else wide // 8
            for key in {"channels", "c1_in_channels", "c1_channels"} & part.keys():
                part[key] //= 8


def _narrow(node: dict[str, Any]) -> None:
    """Gives the pyramid, and the heads that read it, a quarter of their channels."""
    for key in {"in_channels", "out_channels", "feat_channels", "conv_out_channels"} & node.keys():
        if node[key] == 256:
            node[key] = 64


def _steps(cfg: Config, count: int) -> None:
    """Ends the training after `count` iterations: an epoch of the tiny data sets is one."""
    key = "max_iters" if "max_iters" in cfg.train_cfg else "max_epochs"
    cfg.train_cfg[key] = count


@dataclass
class Watch(Hook):
    """Notes what passes: losses, where the training begins and with which weights, predictions."""

    losses: list[dict[str, Tensor]] = field(default_factory=list)
    first_iteration: int = -1
    initial: dict[str, Tensor] = field(default_factory=dict)
    predictions: list[Any] = field(default_factory=list)

    def before_train(self, runner: Any) -> None:
        """Keeps the weights that the training starts from."""
        self.first_iteration = runner.iter
        self.initial = weights(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keeps the losses of an iteration."""
        self.losses.append(outputs)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keeps the predictions for a batch."""
        self.predictions += outputs


def weights(runner: Any) -> dict[str, Tensor]:
    """A copy of the model's state."""
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


@dataclass
class Outcome:
    """What a training, a test and a resumed training left."""

    first: Watch
    resumed: Watch
    metrics: dict[str, float]
    after_first: dict[str, Tensor]
    after_resumed: dict[str, Tensor]


def run(cfg: Config) -> Outcome:
    """Trains one iteration, tests, and lets a second runner resume from the checkpoint for another."""
    first, metrics, after_first = _run(cfg, steps=1, resume=False)
    resumed, _, after_resumed = _run(cfg, steps=2, resume=True)
    return Outcome(first, resumed, metrics, after_first, after_resumed)


def _run(cfg: Config, steps: int, resume: bool) -> tuple[Watch, dict[str, float], dict[str, Tensor]]:
    cfg = cfg.copy()
    _steps(cfg, steps)
    cfg.resume = resume
    cfg.experiment_name = cfg.visualizer.name = f"{Path(cfg.work_dir).parent.name}-{steps}"
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    after = weights(runner)
    return watch, {} if resume else runner.test(), after


def check(outcome: Outcome) -> None:
    """Asserts that both trainings had finite losses and the second went on where the first stopped."""
    for watch, begin in ((outcome.first, 0), (outcome.resumed, 1)):
        assert watch.first_iteration == begin
        assert len(watch.losses) == 1
        for name, loss in watch.losses[0].items():
            assert torch.isfinite(torch.as_tensor(loss)).all(), f"{name} is {loss}"
    assert outcome.resumed.initial.keys() == outcome.after_first.keys()
    for name, value in outcome.resumed.initial.items():
        torch.testing.assert_close(value, outcome.after_first[name], rtol=0, atol=0, msg=name)
    assert moved(outcome.first.initial, outcome.after_first)
    assert moved(outcome.after_first, outcome.after_resumed)


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether any weight differs."""
    return any(not torch.equal(value, after[name]) for name, value in before.items())
