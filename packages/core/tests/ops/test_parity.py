from pathlib import Path

import pytest

from opsin.core import parity

CASES = sorted((Path(__file__).parents[1] / "parity" / "ops").glob("*.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case_matches_the_published_numbers(case: Path) -> None:
    result = parity.run_case(case)
    assert result.error == ""
    assert result.ok
    assert result.worst is not None and result.worst < 1e-5  # own kernels are exact up to float noise
