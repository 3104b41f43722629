"""A run that was killed and resumed ends with the weights, bit for bit, of the run that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toy import Losses, config, loader, weights

from opsin.core.engine.runner import train
from opsin.core.errors import UserError

HERE = Path(__file__).parent

EPOCHS: dict[str, Any] = dict(custom_hooks=[dict(type="EMAHook", momentum=0.1)])
ITERATIONS: dict[str, Any] = dict(
    train_cfg=dict(by_epoch=False, max_iters=30, val_interval=7),
    train_dataloader={**loader(), "sampler": dict(type="InfiniteSampler")},
    param_scheduler=[dict(type="PolyLR", power=0.9, by_epoch=False)],
)
# A checkpoint at iteration 5 falls between two optimizer steps.
ACCUMULATED: dict[str, Any] = dict(
    optim_wrapper=dict(
        optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=3, clip_grad=dict(max_norm=1.0)
    )
)
# Iterations with a sampler that ends, and begins again with another order.
RESTARTED: dict[str, Any] = dict(
    train_cfg=dict(by_epoch=False, max_iters=30, val_interval=7),
    param_scheduler=ITERATIONS["param_scheduler"],
)


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def run_until_killed(changes: dict[str, Any], step: int, work_dir: Path, environment: dict[str, str]) -> None:
    file = work_dir.with_suffix(".py")
    hooks = [*changes.get("custom_hooks", []), dict(type="KillAt", step=step)]
    config(**{**changes, "custom_hooks": hooks}).dump(file)
    command = [sys.executable, str(HERE / "engine_toy.py"), str(file), str(work_dir)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == -9, process.stderr[-2000:]


@pytest.mark.parametrize(
    ("changes", "step", "last"), [(EPOCHS, 17, "iter_36.pth"), (ITERATIONS | ACCUMULATED, 8, "iter_30.pth")]
)
def test_run_resumed_after_kill_ends_with_the_same_weights(
    changes: dict[str, Any], step: int, last: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    train(config(**changes), tmp_path / "whole")
    run_until_killed(changes, step, tmp_path / "killed", environment)
    assert not (tmp_path / "killed" / last).exists()
    train(config(**changes), tmp_path / "killed", resume=True)
    assert_same_weights(tmp_path / "whole" / last, tmp_path / "killed" / last)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        (EPOCHS, 20),
        (EPOCHS | ACCUMULATED, 10),
        (ITERATIONS, 15),
        (RESTARTED, 10),
        (RESTARTED | EPOCHS, 25),
    ],
)
def test_resumed_run_equals_the_whole_one_from_any_checkpoint(
    changes: dict[str, Any], kept: int, tmp_path: Path
) -> None:
    every = dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5)))
    runner = train(config(**changes, **every), tmp_path)
    last = f"iter_{runner.iter}.pth"
    (tmp_path / last).rename(tmp_path / "whole.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / f"iter_{kept}.pth"))
    resumed = train(config(**changes, **every), tmp_path, resume=True)
    assert resumed.iter == runner.iter
    assert_same_weights(tmp_path / "whole.pth", tmp_path / last)


def test_resume_with_another_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    train(config(), tmp_path)
    (tmp_path / "iter_36.pth").rename(tmp_path / "whole.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_35.pth"))
    train(config(train_dataloader=loader(workers=2)), tmp_path, resume=True)
    assert_same_weights(tmp_path / "whole.pth", tmp_path / "iter_36.pth")


def test_resume_keeps_a_seed_that_was_drawn(tmp_path: Path) -> None:
    unseeded = dict(randomness=dict(seed=None, deterministic=True))
    train(config(**unseeded), tmp_path)
    (tmp_path / "iter_36.pth").rename(tmp_path / "whole.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_35.pth"))
    train(config(**unseeded), tmp_path, resume=True)
    assert_same_weights(tmp_path / "whole.pth", tmp_path / "iter_36.pth")


def test_resume_follows_a_moved_work_dir(tmp_path: Path) -> None:
    train(config(), tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert train(config(), tmp_path / "new", resume=True).iter == 36


def test_resume_reads_no_sample_that_was_trained_already(tmp_path: Path) -> None:
    read: list[int] = []
    train(config(), tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_35.pth"))
    from engine_toy import ToyVectors

    original = ToyVectors.prepare_data

    def counted(self: Any, index: int) -> Any:
        read.append(index)
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyVectors, "prepare_data", counted)
        train(config(val_dataloader=None, val_cfg=None, val_evaluator=None), tmp_path, resume=True)
    assert len(read) == 4


@pytest.mark.parametrize(("kept", "left"), [(15, 11), (24, 6), (35, 1)])
def test_resume_with_another_batch_size_keeps_the_place(kept: int, left: int, tmp_path: Path) -> None:
    every = dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1)))
    train(config(**every), tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / f"iter_{kept}.pth"))
    changes = dict(train_dataloader=loader(batch_size=8), custom_hooks=[dict(type="Losses")])
    resumed = train(config(**every, **changes), tmp_path, resume=True)
    assert (resumed.iter, resumed.epoch) == (18, 3)
    assert [len(hook.losses) for hook in resumed.hooks if isinstance(hook, Losses)] == [left]


def test_resume_with_nothing_to_resume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        train(config(), tmp_path, resume=True)


def test_resume_of_another_model_names_the_tensors(tmp_path: Path) -> None:
    train(config(), tmp_path)
    with pytest.raises(UserError, match=r"stem\.weight is \[16, 6\] and should be \[8, 6\]"):
        train(config(model=dict(type="ToyModel", width=8)), tmp_path, resume=True)


def test_early_stopping_counts_on_after_resume(tmp_path: Path) -> None:
    changes = dict(
        custom_hooks=[dict(type="opsin.EarlyStoppingHook", monitor="acc", patience=2, min_delta=2.0)],
        train_cfg=dict(by_epoch=True, max_epochs=6, val_interval=1),
    )
    stopped = train(config(**changes), tmp_path)
    assert stopped.epoch == 3
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_35.pth"))
    assert train(config(**changes), tmp_path, resume=True).epoch == 3
