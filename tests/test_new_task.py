"""`opsin new-task` writes a package that installs, registers, trains and passes its own tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_new_package_installs_registers_trains_and_passes_its_own_tests(tmp_path: Path) -> None:
    """The package goes into a folder of its own, so that this environment stays as it is."""
    site = tmp_path / "site"
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    opsin = [sys.executable, "-m", "opsin"]

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*opsin, "new-task", "disc_counting")
    package = tmp_path / "opsin-disc-counting"
    install = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", site)
    run(sys.executable, *install, package)
    shutil.rmtree(package / "src")  # what is tested below is what was installed

    findings = {row["what"]: row["found"] for row in json.loads(run(*opsin, "doctor", "--json"))}
    assert findings["task disc_counting"] == "opsin_disc_counting"
    run(*opsin, "samples", "disc_counting", "samples")
    run(*opsin, "train", "disc_counting_samples", "--data", "samples", "train_cfg.max_epochs=1")
    assert (tmp_path / "work_dirs" / "disc_counting_samples" / "epoch_1.pth").is_file()
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", package)
