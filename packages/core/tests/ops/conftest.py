import pytest
from hypothesis import settings

settings.register_profile("opsin", max_examples=12, deadline=None, derandomize=True)
settings.load_profile("opsin")


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test on the kernels and on the PyTorch paths."""
    monkeypatch.setenv("OPSIN_NUMBA", "1" if request.param == "numba" else "0")
    return str(request.param)
