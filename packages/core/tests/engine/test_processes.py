"""Two processes under torchrun train as one does with the same global batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toy import config, loader

from opsin.core.engine.runner import train

HERE = Path(__file__).parent


def cfg_for(batch_size: int) -> Any:
    return config(
        model=dict(type="ToyModel", drop=0.0),
        train_dataloader=loader(batch_size=batch_size),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook", interval=1)
        ),
        log_processor=dict(window_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
        env_cfg=dict(dist_cfg=dict(backend="gloo")),
    )


def curve(work_dir: Path, key: str) -> list[float]:
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path, environment: dict[str, str]) -> None:
    one = train(cfg_for(8), tmp_path / "one")
    cfg_for(4).dump(tmp_path / "config.py")
    arguments = [str(HERE / "engine_toy.py"), str(tmp_path / "config.py"), str(tmp_path / "two")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*launcher, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert len(curve(tmp_path / "two", "loss")) == 12
    assert curve(tmp_path / "two", "loss") == pytest.approx(curve(tmp_path / "one", "loss"), rel=1e-4)
    assert curve(tmp_path / "two", "acc") == pytest.approx(curve(tmp_path / "one", "acc"), abs=1e-6)
    ours = torch.load(tmp_path / "two" / "epoch_2.pth", weights_only=True)["state_dict"]
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
