"""opsin's ops give what mmcv's compiled extension gave (`benchmarks/compiled_mmcv.py --pin` wrote it)."""

from pathlib import Path

import mmcv_op_cases as cases
import numpy as np
import pytest
import torch

import opsin.registry  # noqa: F401  # puts opsin's functions in the place of mmcv._ext

PINNED = sorted(Path(__file__).with_name("compiled").glob("*.npz"))


def test_every_case_is_pinned() -> None:
    assert [path.stem for path in PINNED] == sorted(name for name in cases.CASES)


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_outputs_and_gradients_are_those_of_the_compiled_extension(path: Path) -> None:
    import mmcv.ops

    with np.load(path) as pinned:
        stored = {name: torch.from_numpy(pinned[name]) for name in pinned.files}
    inputs = {name.removeprefix("in_"): value for name, value in stored.items() if name.startswith("in_")}
    found = cases.run(cases.CASES[path.stem], mmcv.ops, inputs)
    assert set(found) == {name for name in stored if not name.startswith("in_")}
    for name, value in found.items():
        torch.testing.assert_close(value, stored[name].to(value.dtype), rtol=1e-4, atol=1e-5)
