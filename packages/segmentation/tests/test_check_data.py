"""`opsin check-data`: all that is wrong with the data of a config, in one line each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin.core.cli import main
from opsin.core.data.checker import check_data
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError


@pytest.fixture
def data(samples: Path, tmp_path: Path) -> Path:
    """A copy of the samples to damage."""
    return Path(shutil.copytree(samples, tmp_path / "data"))


def relabel(path: Path, value: int) -> None:
    labels = np.array(Image.open(path))
    labels[0, 0] = value
    Image.fromarray(labels).save(path)


def test_every_fault_of_semantic_data_is_one_line_that_names_file_and_label(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel(data / "masks/train/0003.png", 77)
    relabel(data / "masks/val/0001.png", 200)
    (data / "images/train/0005.jpg").write_bytes(b"")
    with pytest.raises(SystemExit) as left:
        main(["check-data", "upernet_convnext_samples", "--data", str(data), "--json"])
    assert left.value.code == 1
    train, val = json.loads(capsys.readouterr().out)
    assert (train["samples"], val["samples"]) == (12, 4)
    bad_label, empty = train["faults"]
    assert f"mask {data}/masks/train/0003.png holds label 77, outside the 7 classes" in bad_label
    assert "0005.jpg is empty" in empty
    assert "val/0001.png holds label 200, outside the 7 classes" in val["faults"][0]


@pytest.mark.parametrize("config", ["panoptic_segformer_convnext_samples", "frozenseg_tiny_samples"])
def test_segment_ids_that_the_json_does_not_list_are_named(data: Path, config: str) -> None:
    relabel(data / "annotations/panoptic_train/0002.png", 255)  # 255 + 256 * 255 + 65536 * 255
    train, val = check_data(load_config(config, data=data))
    assert not val.faults
    [fault] = train.faults
    assert f"{data}/annotations/panoptic_train/0002.png does not match its segments_info" in fault
    assert "segment 16777215 is painted but not listed" in fault


def test_whole_data_have_no_faults_and_are_read_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check-data", "upernet_convnext_samples", "--data", str(data)])
    assert not left.value.code
    assert "MaskPairs" in capsys.readouterr().out
    checks = check_data(load_config("upernet_convnext_samples", data=data))
    assert [check.part for check in checks] == ["train", "val"]  # test's is val's


def test_missing_folders_of_one_part_do_not_hide_the_faults_of_another(data: Path) -> None:
    shutil.rmtree(data / "masks/train")
    relabel(data / "masks/val/0001.png", 200)
    train, val = check_data(load_config("upernet_convnext_samples", data=data))
    assert train.samples == 0 and "lacks masks/train" in train.faults[0]
    assert "holds label 200" in val.faults[0]


def test_a_config_without_data_is_refused() -> None:
    cfg = load_config("upernet_convnext_samples")
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"] = None
    with pytest.raises(UserError, match="names no data"):
        check_data(cfg)
