"""Checkpoints are whole, plain and safe to read, and a failed write loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_toy import config, loader
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from opsin.core.engine.checkpoint import read_run, to_plain
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.files import write_atomically

HERE = Path(__file__).parent


class Malicious:
    """Loading its pickle writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a finished run with EMA."""
    place = tmp_path_factory.mktemp("run")
    train(config(custom_hooks=[dict(type="EMAHook", momentum=0.1)]), place)
    return place


def test_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"state_dict": {}, "meta": Malicious(mark)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="could run code"):
        evaluate(config(), tmp_path / "bad.pth")
    assert not mark.exists()


def test_a_process_without_opsin_reads_a_checkpoint(run: Path) -> None:
    code = f"import torch; print(torch.load({str(run / 'iter_36.pth')!r}, weights_only=True)['meta']['iter'])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "36"


def test_plain_types_keep_what_was_said() -> None:
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    given = {"a": np.float64(0.5), "b": (np.arange(2), {"c"}), "n": None, "s": np.str_("x"), "h": history}
    plain = to_plain(given)
    assert type(plain["a"]) is float
    assert type(plain["s"]) is str
    assert (plain["a"], plain["b"], plain["n"], plain["s"]) == (0.5, ([0, 1], ["c"]), None, "x")
    assert plain["h"]["log_history"].tolist() == [1.0, 2.0]


def test_log_histories_come_back(run: Path) -> None:
    history = read_run(run / "iter_36.pth")["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert len(history.data[0]) == 36


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_truncated_checkpoint_is_named(run: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.pth").write_bytes((run / "iter_36.pth").read_bytes()[:size])
    with pytest.raises(UserError, match=r"cut\.pth is (truncated|not a checkpoint)"):
        evaluate(config(), tmp_path / "cut.pth")


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        evaluate(config(), tmp_path / "none.pth")


def test_checkpoint_of_another_model_names_tensors_and_shapes(run: Path) -> None:
    with pytest.raises(UserError, match=r"stem\.weight is \[16, 6\] and should be \[8, 6\].*more") as caught:
        evaluate(config(model=dict(type="ToyModel", width=8)), run / "iter_36.pth")
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_number_of_classes_is_named(run: Path) -> None:
    other = config(test_dataloader=loader(classes=("a", "b")), model=dict(type="ToyModel", num_classes=2))
    with pytest.raises(UserError, match=r"was trained for 3 classes .* this data has 2"):
        evaluate(other, run / "iter_36.pth")


def test_evaluation_uses_the_averaged_weights(run: Path, tmp_path: Path) -> None:
    content = read_run(run / "iter_36.pth")
    averaged = {k.removeprefix("module."): v for k, v in content["ema_state_dict"].items() if k != "steps"}
    # mmengine swaps the two: what is called EMA in the file are the weights being trained
    assert any(not torch.equal(averaged[name], tensor) for name, tensor in content["state_dict"].items())
    save_file(dict(content["state_dict"]), tmp_path / "averaged.safetensors")
    save_file(averaged, tmp_path / "trained.safetensors")
    scores = [
        evaluate(config(), path)["score"]
        for path in (run / "iter_36.pth", tmp_path / "averaged.safetensors", tmp_path / "trained.safetensors")
    ]
    assert scores[0] == scores[1] != scores[2]
    with_hook = config(custom_hooks=[dict(type="EMAHook", momentum=0.1)])
    assert evaluate(with_hook, run / "iter_36.pth")["score"] == scores[0]


def test_fine_tuning_takes_what_fits_and_refuses_what_fits_nowhere(run: Path, tmp_path: Path) -> None:
    start = dict(load_from=str(run / "iter_36.pth"), optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.0)))
    more = dict(model=dict(type="ToyModel", num_classes=4), param_scheduler=None)
    runner = train(config(**start, **more), tmp_path / "finer")
    assert torch.equal(runner.model.stem.weight, read_run(run / "iter_36.pth")["state_dict"]["stem.weight"])
    torch.save({"state_dict": {"other.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no tensor of"):
        train(config(load_from=str(tmp_path / "other.pth")), tmp_path / "none")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from opsin.core.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomically(sys.argv[1], b'x' * 5000)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("UserError can't write")
    assert "what was saved before is intact" in said
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_disk_that_fills_up_loses_no_checkpoint(tmp_path: Path, environment: dict[str, str]) -> None:
    train(config(train_cfg=dict(by_epoch=True, max_epochs=1), default_hooks={}), tmp_path / "run")
    config(default_hooks={}).dump(tmp_path / "config.py")
    # Files may grow to 9 kB in this process: the configuration still fits, a checkpoint does not.
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import opsin.core.engine.runner\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"sys.argv = ['x', {str(tmp_path / 'config.py')!r}, {str(tmp_path / 'run')!r}, '--resume']\n"
        f"runpy.run_path({str(HERE / 'engine_toy.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", limited]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "UserError: can't write" in process.stderr
    assert (tmp_path / "run" / "last_checkpoint").read_text().endswith("epoch_1.pth")
    assert read_run(tmp_path / "run" / "epoch_1.pth")["meta"]["epoch"] == 1
    assert train(config(default_hooks={}), tmp_path / "run", resume=True).epoch == 3


def test_atomic_write_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    hook = dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="auto")
    train(config(default_hooks=dict(checkpoint=hook), train_cfg=dict(by_epoch=True, max_epochs=4)), tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names[1:] == ["epoch_3.pth", "epoch_4.pth"]
    assert names[0].startswith("best_acc_epoch_")
