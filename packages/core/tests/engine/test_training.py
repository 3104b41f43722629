"""What a training run promises: it stops on NaN, accumulates, runs in bfloat16, and writes its logs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toy import Losses, config, loader
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from opsin.core.engine.hooks import NonFiniteError, image_paths
from opsin.core.engine.progress import ProgressHook
from opsin.core.engine.runner import Runner, train
from opsin.core.engine.runner import test as evaluate
from opsin.core.errors import UserError

NO_VALIDATION: dict[str, Any] = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)


def losses(runner: Runner) -> list[float]:
    return next(hook.losses for hook in runner.hooks if isinstance(hook, Losses))


def test_nan_stops_with_step_batch_and_pictures_and_saves_nothing(tmp_path: Path) -> None:
    changes = dict(train_dataloader=loader(shuffle=False, nan=(27,)), **NO_VALIDATION)
    with pytest.raises(NonFiniteError) as caught:
        train(config(**changes), tmp_path)
    text = str(caught.value)
    assert text.startswith("loss is nan, loss_cls is nan at iteration 7 (epoch 1, batch 7: pictures/24.png")
    assert "pictures/27.png" in text
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["iter_5.pth"]
    content = torch.load(tmp_path / "iter_5.pth", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in content["state_dict"].values())


def test_broken_weights_are_not_saved(tmp_path: Path) -> None:
    changes = dict(
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e38, weight_decay=1e3)),
        param_scheduler=None,
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1)),
    )
    with pytest.raises(NonFiniteError, match=r"the weight stem\.weight is not finite after iteration 1"):
        train(config(**changes), tmp_path)
    assert list(tmp_path.glob("*.pth")) == []


@pytest.mark.parametrize(
    "batch",
    [
        {"inputs": [], "img_path": ["a.png", "b.png"]},
        {"data_samples": [BaseDataElement(metainfo={"img_path": p}) for p in ("a.png", "b.png")]},
        [{"img_path": "a.png"}, ({"img_path": "b.png"}, 1)],
    ],
)
def test_picture_paths_are_found_in_any_batch(batch: Any) -> None:
    assert image_paths(batch) == ["a.png", "b.png"]


def test_accumulated_gradients_equal_the_big_batch(tmp_path: Path) -> None:
    def trained(name: str, batch_size: int, counts: int) -> dict[str, torch.Tensor]:
        changes: dict[str, Any] = dict(
            model=dict(type="ToyModel", drop=0.0),
            train_dataloader=loader(batch_size=batch_size),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9), accumulative_counts=counts),
            param_scheduler=None,
            **NO_VALIDATION,
        )
        state: dict[str, torch.Tensor] = train(config(**changes), tmp_path / name).model.state_dict()
        return state

    big, small = trained("big", 8, 1), trained("small", 2, 4)
    for name, tensor in big.items():
        torch.testing.assert_close(small[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_bfloat16_autocast_trains_on_the_cpu(tmp_path: Path) -> None:
    wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16", optimizer=dict(type="SGD", lr=0.1, momentum=0.9))
    changes = dict(optim_wrapper=wrapper, custom_hooks=[dict(type="Losses")], **NO_VALIDATION)
    dtypes = set()

    class Watched(Runner):
        def build_model(self, model: Any) -> nn.Module:
            built = super().build_model(model)
            built.stem.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
            return built

    runner = Watched.from_cfg(config(**changes, work_dir=str(tmp_path)))
    runner.train()
    assert dtypes == {torch.bfloat16}
    assert runner.model.stem.weight.dtype == torch.float32
    assert sum(losses(runner)[-6:]) < sum(losses(runner)[:6])


def test_logs_are_json_lines_and_tensorboard_events(tmp_path: Path) -> None:
    backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
    train(config(visualizer=dict(type="Visualizer", vis_backends=backends)), tmp_path)
    (folder,) = tmp_path.glob("*/vis_data")
    rows = [json.loads(line) for line in (folder / "scalars.json").read_text().splitlines()]
    assert {row["step"] for row in rows if "loss" in row} == {10, 22, 34}
    assert sum("acc" in row for row in rows) == 3
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 22, 34]


def test_two_runs_in_one_second_share_nothing(tmp_path: Path) -> None:
    first = train(
        config(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="acc"))), tmp_path / "1"
    )
    second = train(config(), tmp_path / "2")
    assert "best_score" in first.message_hub.runtime_info
    assert "best_score" not in second.message_hub.runtime_info


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A terminal as stderr; what was drawn on it is in the list afterwards."""
    ours, theirs = pty.openpty()
    drawn: list[str] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # that is how a terminal ends
            while piece := os.read(ours, 4096):
                drawn.append(piece.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        yield drawn
    reader.join()
    os.close(ours)


def test_progress_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with terminal(monkeypatch) as drawn:
        stream = sys.stderr
        runner = train(config(), tmp_path)
        assert sys.stderr is stream
    screen = "".join(drawn)
    assert [text for text in ("train", "val", "36/36", "loss") if text not in screen] == []
    assert all(hook.progress is None for hook in runner.hooks if isinstance(hook, ProgressHook))


def test_progress_is_silent_elsewhere(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train(config(), tmp_path)
    assert "36/36" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_file_ends_in_its_own_line(workers: int, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(config(train_dataloader=loader(workers=workers, broken=(3,))), tmp_path)
    assert str(caught.value) == "pictures/3.png is truncated"


def test_evaluation_gives_the_numbers_among_the_metrics(tmp_path: Path) -> None:
    train(config(**NO_VALIDATION), tmp_path)
    metrics = evaluate(config(), tmp_path / "iter_36.pth")
    assert set(metrics) == {"acc", "score"}
    assert metrics == evaluate(
        config(test_dataloader=loader(shuffle=False, workers=1)), tmp_path / "iter_36.pth"
    )


def test_config_is_readable_in_the_work_dir_and_in_checkpoints(tmp_path: Path) -> None:
    train(Config(config().to_dict(), format_python_code=True), tmp_path)
    (file,) = tmp_path.glob("*.py")
    content = torch.load(tmp_path / "iter_36.pth", weights_only=True)
    assert max(map(len, file.read_text().splitlines())) < 100
    assert Config.fromfile(file).to_dict() == Config.fromstring(content["meta"]["cfg"], ".py").to_dict()


def test_a_hook_of_opsin_can_be_dropped(tmp_path: Path) -> None:
    runner = Runner.from_cfg(config(default_hooks=dict(stop_on_nan=None, timer=None), work_dir=str(tmp_path)))
    names = {type(hook).__name__ for hook in runner.hooks}
    assert not names & {"StopOnNaN", "IterTimerHook"}
    assert {"CheckpointHook", "SeedSteps", "ExactResume"} <= names


def test_unknown_class_in_a_config_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown model 'ToyModle'; did you mean ToyModel"):
        train(config(model=dict(type="ToyModle")), tmp_path)


@pytest.mark.parametrize(("missing", "call"), [("train", train), ("test", evaluate)])
def test_config_without_data_is_refused(missing: str, call: Any, tmp_path: Path) -> None:
    cfg = config()
    cfg.pop(f"{missing}_dataloader")
    with pytest.raises(UserError, match=f"the config has no {missing}_dataloader"):
        call(cfg, tmp_path)
