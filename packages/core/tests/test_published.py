"""Reading the authors' files: what wraps the weights, what is refused, and what a person is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import load_published, place, read_checkpoint


def _tensors() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t, "epoch": 3},
        lambda t: {"state_dict": t},
        lambda t: {"params": {"weight": torch.zeros(2, 3)}, "params_ema": t},
        lambda t: {"model": {"weight": torch.zeros(2, 3)}, "model_ema": t},
        lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}},
    ],
    ids=[
        "bare",
        "model",
        "state_dict",
        "params_ema before params",
        "model_ema before model",
        "module. prefix",
    ],
)
def test_weights_are_found_inside_what_wraps_them(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object]
) -> None:
    torch.save(wrap(_tensors()), tmp_path / "published.pth")
    model = load_published(nn.Linear(3, 2), tmp_path / "published.pth")
    assert torch.equal(model(torch.ones(1, 3)), torch.tensor([[4.0, 14.0]]))


def test_key_chooses_among_entries(tmp_path: Path) -> None:
    torch.save({"model": _tensors(), "model_ema": {}}, tmp_path / "published.pth")
    assert set(read_checkpoint(tmp_path / "published.pth", "model")) == {"weight", "bias"}
    with pytest.raises(UserError, match=r"no entry 'teacher'; it has model, model_ema"):
        read_checkpoint(tmp_path / "published.pth", "teacher")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(_tensors(), tmp_path / "published.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "published.safetensors")["weight"], _tensors()["weight"])


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"model": _tensors(), "extra": _Malicious(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="could run code"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02garbage"])
def test_file_that_is_no_checkpoint_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.(pth|safetensors)"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_truncated_checkpoint_is_named(tmp_path: Path, share: float) -> None:
    torch.save({"model": _tensors()}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.pth is truncated or not a checkpoint"):
        read_checkpoint(tmp_path / "cut.pth")


def test_missing_file_and_file_without_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "missing.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "empty.pth")


def test_other_model_is_refused_with_the_first_differing_tensors() -> None:
    with pytest.raises(UserError) as refused:
        place(nn.Linear(4, 2), {**_tensors(), "scale": torch.ones(1)}, source="other.pth")
    text = str(refused.value)
    assert text.startswith("other.pth is not for Linear: weight is [2, 3] and should be [2, 4]")
    assert "scale [1] is left over" in text


def test_missing_tensor_is_refused_and_the_model_is_left_as_it_was() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(UserError, match=r"bias \[2\] is missing"):
        place(model, {"weight": torch.zeros(2, 3)})
    assert torch.equal(model.weight, before)
