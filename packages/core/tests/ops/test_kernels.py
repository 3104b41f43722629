import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.core import ops
from opsin.core.ops import kernels

OPS = sorted(
    path.stem for path in Path(ops.__path__[0]).glob("*.py") if path.stem not in ("__init__", "published")
)


def test_importing_every_op_imports_neither_numba_nor_mmcv() -> None:
    imports = "; ".join(f"import opsin.core.ops.{name}" for name in OPS)
    check = "import sys; print(sorted(m for m in ('numba', 'triton', 'mmcv', 'mmdet') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_numba_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.enabled(torch.zeros(1))
    monkeypatch.setenv("OPSIN_NUMBA", "0")
    assert not kernels.enabled(torch.zeros(1))


def test_tensors_elsewhere_are_left_to_pytorch() -> None:
    assert not kernels.enabled(torch.zeros(1), torch.zeros(1, device="meta"))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("total", [0, 1, 3, 100])
def test_every_part_is_done_once(threads: int, total: int) -> None:
    done, before = np.zeros(total, int), torch.get_num_threads()

    def kernel(begin: int, end: int, out: np.ndarray) -> None:
        out[begin:end] += 1

    try:
        torch.set_num_threads(threads)
        kernels.run(kernel, total, done)
    finally:
        torch.set_num_threads(before)
    assert (done == 1).all()


def test_an_error_in_a_part_is_raised() -> None:
    def kernel(begin: int, end: int) -> None:
        if end == 4:
            raise ZeroDivisionError

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            kernels.run(kernel, 4)
    finally:
        torch.set_num_threads(before)


def test_kernels_work_where_their_machine_code_cannot_be_kept() -> None:
    code = """if True:
        import torch
        from opsin.core.ops.nms import nms
        from opsin.core.ops.kernels.nms import suppress
        boxes, scores = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.1, 0.9])
        assert nms(boxes, scores, 0.5).tolist() == [1]
        assert suppress.stats.cache_path is None
    """
    environment = {
        **os.environ,
        "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator",
    }  # finds no folder for a file
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
