"""A run keeps its work dir for itself, and asks the machine before it starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_toy import config

from opsin.core.engine.runner import train
from opsin.core.engine.workdir import exclusive, prepare_work_dir, process_backend, require_gpus
from opsin.core.errors import UserError

HERE = Path(__file__).parent


def test_work_dir_of_a_living_run_is_refused_and_of_a_killed_one_is_not(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    sleepy = config(custom_hooks=[dict(type="SleepAt", step=7)])
    sleepy.train_dataloader.num_workers = 1  # a worker outlives the kill by seconds
    sleepy.dump(tmp_path / "config.py")
    command = [
        sys.executable,
        str(HERE / "engine_toy.py"),
        str(tmp_path / "config.py"),
        str(tmp_path / "run"),
    ]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as other:
        while not (tmp_path / "run" / "asleep").exists():
            assert other.poll() is None
            time.sleep(0.1)
        with pytest.raises(UserError, match=rf"is in use by process {other.pid} on ") as caught:
            train(config(), tmp_path / "run", resume=True)
        assert "\n" not in str(caught.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert train(config(), tmp_path / "run", resume=True).iter == 36


def test_lock_is_free_after_the_run(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path):
            assert "process" in (tmp_path / ".lock").read_text()


@pytest.mark.parametrize("place", ["file/run", "/proc/opsin"])
def test_work_dir_that_cannot_be_written_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"can't write to the work dir .*choose another"):
        train(config(), tmp_path / place)


def test_writing_test_leaves_no_file(tmp_path: Path) -> None:
    assert list(prepare_work_dir(tmp_path / "a" / "b").iterdir()) == []


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    count = torch.cuda.device_count()
    require_gpus(count)
    with pytest.raises(
        UserError, match=rf"{count + 2} GPUs asked for and this machine has {count or 'none'}"
    ):
        require_gpus(count + 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count + 2))
    with pytest.raises(UserError, match="GPUs asked for"):
        process_backend("nccl")


def test_backend_follows_the_machine() -> None:
    assert (
        process_backend("auto") == process_backend(None) == ("nccl" if torch.cuda.is_available() else "gloo")
    )
    assert process_backend("gloo") == "gloo"
