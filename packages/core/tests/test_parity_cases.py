"""Parity cases: how tensors are filled, what is compared, and that a failing case does not stop the next."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.core.parity import SAMPLED_PLACES, Case, fill, find_adapter, make_input, run_case, sampled_places

CASES = Path(__file__).parent / "parity"
BLOCK = CASES / "convnext" / "convnext-block.json"


def test_fill_depends_on_the_name_alone_and_follows_its_kind() -> None:
    assert np.array_equal(fill("a.weight", (4, 5), 0, []), fill("a.weight", (4, 5), 0, []))
    assert not np.array_equal(fill("a.weight", (4, 5), 0, []), fill("b.weight", (4, 5), 0, []))
    assert (fill("bn.running_var", (500,), 0, []) >= 1).all()
    assert abs(fill("norm.weight", (2000,), 0, []).mean() - 1) < 0.02
    assert abs(fill("norm.bias", (2000,), 0, []).mean()) < 0.02
    assert abs(fill("conv.weight", (8, 50, 5), 0, []).std() - 250**-0.5) < 0.005
    assert abs(fill("pos_embed", (1, 50, 50), 0, []).std() - 0.1) < 0.005
    assert abs(fill("gamma", (2000,), 0, [{"match": "gamma$", "mean": 5.0, "std": 0.1}]).mean() - 5) < 0.02


def test_inputs_follow_their_specs() -> None:
    assert make_input({"kind": "literal", "value": [1, 2], "dtype": "int64"}).tolist() == [1, 2]
    uniform = make_input({"kind": "uniform", "seed": 1, "shape": [1000], "low": 2.0, "high": 3.0})
    assert uniform.min() >= 2 and uniform.max() <= 3
    integers = make_input({"kind": "integers", "seed": 1, "shape": [1000], "low": 3, "high": 7})
    assert set(integers.tolist()) == {3, 4, 5, 6}


def test_large_outputs_are_pinned_at_a_sample_of_places() -> None:
    places = sampled_places("out", 100_000)
    assert len(places) == SAMPLED_PLACES == len(set(places.tolist()))
    assert (np.diff(places) > 0).all()
    assert sampled_places("out", 10).tolist() == list(range(10))


def test_difference_is_relative_to_the_output_and_nan_is_never_in_tolerance() -> None:
    case = Case({"outputs": {"out": {"shape": [2]}}}, {"out": np.array([1.0, 4.0])})
    assert case.compare({"out": torch.tensor([1.0, 3.0])}) == 0.25
    assert case.compare({"out": torch.tensor([1.0, float("nan")])}) == float("inf")
    with pytest.raises(ValueError, match="shape"):
        case.compare({"out": torch.zeros(3)})
    with pytest.raises(ValueError, match="not computed"):
        case.compare({})


def test_case_in_tolerance_is_ok_and_a_changed_number_is_not(tmp_path: Path) -> None:
    assert run_case(BLOCK).ok
    with np.load(BLOCK.with_suffix(".npz")) as arrays:
        changed = {name: value + 1 for name, value in arrays.items()}
    np.savez(tmp_path / "changed.npz", **changed)
    (tmp_path / "changed.json").write_text(BLOCK.read_text())
    result = run_case(tmp_path / "changed.json")
    assert not result.ok and not result.error and result.worst is not None
    assert result.worst > 0.01


def _altered(tmp_path: Path, **changes: object) -> Path:
    meta = {**json.loads(BLOCK.read_text()), **changes}
    (tmp_path / "altered.npz").write_bytes(BLOCK.with_suffix(".npz").read_bytes())
    (tmp_path / "altered.json").write_text(json.dumps(meta))
    return tmp_path / "altered.json"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"source": "someone/else@0 models/other.py Strange"}, "models/other.py Strange"),
        ({"system": "no-such-system"}, "no-such-system"),
        ({"tensors": [["gamma", [24]]]}, "is missing"),
    ],
)
def test_case_that_can_not_be_run_is_an_error_that_names_why(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    result = run_case(_altered(tmp_path, **changes))
    assert not result.ok and expected in result.error


def test_missing_or_broken_case_files_are_errors(tmp_path: Path) -> None:
    assert "no parity case" in run_case(tmp_path / "none.json").error
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.npz").write_bytes(b"")
    assert "bad.json is not a parity case" in run_case(tmp_path / "bad.json").error


def test_published_tensors_left_over_are_refused(tmp_path: Path) -> None:
    tensors = [*json.loads(BLOCK.read_text())["tensors"], ["extra.weight", [3]]]
    assert "extra.weight [3] is left over" in run_case(_altered(tmp_path, tensors=tensors)).error


def test_every_case_of_the_tests_has_an_adapter() -> None:
    for path in sorted(CASES.glob("*/*.json")):
        find_adapter(Case.load(path))
