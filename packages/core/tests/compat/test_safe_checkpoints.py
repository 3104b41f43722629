import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

SAVE_AND_LOAD = """
import io, torch
from mmengine.logging import HistoryBuffer
file = io.BytesIO()
torch.save(HistoryBuffer([1.0], [1]), file)
file.seek(0)
torch.load(file)
"""


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def load(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


def test_unmended_torch_refuses_what_mmengine_saves(unmended: Callable[[str], str]) -> None:
    assert "Unsupported global" in unmended(SAVE_AND_LOAD)


def test_a_message_hub_survives_a_checkpoint(tmp_path: Path) -> None:
    hub = MessageHub.get_instance("test_safe_checkpoints")
    hub.update_scalars({"loss": 2.0, "lr": np.float32(0.5)})
    hub.update_scalar("loss", 4.0)
    hub.update_info_dict({"best": np.float64(3), "iter": np.int64(7)})
    hub.update_info_dict({"curve": np.arange(3), "names": np.array(["a"])})
    torch.save({"message_hub": hub.state_dict()}, tmp_path / "last.pth")
    state = CheckpointLoader.load_checkpoint(str(tmp_path / "last.pth"))["message_hub"]
    assert state["log_scalars"]["loss"].mean() == 3.0
    assert state["log_scalars"]["loss"].statistics("max") == 4.0
    assert state["runtime_info"]["best"] == 3 and state["runtime_info"]["iter"] == 7
    np.testing.assert_array_equal(state["runtime_info"]["curve"], [0, 1, 2])
    np.testing.assert_array_equal(state["runtime_info"]["names"], ["a"])


def test_checkpoints_written_with_numpy_1_are_read() -> None:
    file = io.BytesIO()
    torch.save({"a": np.arange(3.0), "b": np.float64(2)}, file, _use_new_zipfile_serialization=False)
    old = io.BytesIO(file.getvalue().replace(b"numpy._core", b"numpy.core"))
    assert old.getvalue() != file.getvalue()
    found = torch.load(old)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"] == 2


@pytest.mark.parametrize(
    "call",
    [
        Calls(eval, "1 + 1"),
        Calls(getattr, HistoryBuffer, "__init__"),
        Calls(getattr, HistoryBuffer, "_statistics_methods"),
        Calls(getattr, Calls(getattr, HistoryBuffer, "mean"), "__globals__"),
        Calls(getattr, np.dtype, "newbyteorder"),
        Calls(getattr, torch.Tensor, "data_ptr"),
    ],
    ids=["eval", "private method", "private value", "method's globals", "other class", "tensor's method"],
)
def test_a_checkpoint_that_would_run_code_is_refused(call: Calls) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load({"state_dict": {}, "meta": call})


def test_mmengine_reads_weights_only(tmp_path: Path) -> None:
    torch.save(Calls(exec, f"open({str(tmp_path / 'ran')!r}, 'w')"), tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()
