from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from opsin.classification.datasets import SVHN
from opsin.classification.predictor import ClassificationPredictor
from opsin.core.data import write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError

IN_PROCESS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False", "batch_size=10")
]


def write_split(folder: Path, split: str, count: int, seed: int = 0) -> np.ndarray:
    """A split as the authors lay it out: pictures along the last axis, zeros labelled 10."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    labels = np.array([index % 10 or 10 for index in range(count)], np.uint8)[:, None]
    content = {"X": pictures, "y": labels}
    savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
    return pictures


@pytest.fixture
def svhn(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_split(tmp_path / "svhn", split, 20, seed)
    return tmp_path / "svhn"


def test_pictures_come_with_their_digits(svhn):
    pictures = write_split(svhn, "extra", 13)
    found = SVHN(data_root=str(svhn), split="extra")
    assert found.metainfo["classes"] == tuple("0123456789")
    samples = [found.get_data_info(index) for index in range(len(found))]
    assert [sample["gt_label"] for sample in samples] == [*range(10), 0, 1, 2]
    assert np.array_equal(samples[11]["img"], pictures[..., 11])
    assert samples[11]["img_path"].endswith("extra_32x32.mat/000011.png")


def test_a_file_of_one_picture_is_read(svhn):
    write_split(svhn, "test", 1)
    (sample,) = SVHN(data_root=str(svhn), split="test")
    assert sample["img"].shape == (32, 32, 3) and sample["gt_label"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "lacks X or y"),
        ({"X": np.zeros((28, 28, 3, 2), np.uint8), "y": [1, 2]}, r"uint8 \(28, 28, 3, 2\), expected"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [1, 2]}, "X of float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [1, 2, 3]}, "2 pictures and 3 labels"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": ["one", "two"]}, "2 pictures and 2 labels"),
    ],
)
def test_another_content_is_named(svhn, content, message):
    savemat(svhn / "test_32x32.mat", content)
    with pytest.raises(UserError, match=message):
        SVHN(data_root=str(svhn), split="test")


@pytest.mark.parametrize("kept", [0, 50, 400])
def test_a_damaged_file_is_named(svhn, kept):
    path = svhn / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"test_32x32\.mat is no SVHN file"):
        SVHN(data_root=str(svhn), split="test")


def test_a_missing_file_and_a_wrong_split_are_named(svhn):
    with pytest.raises(UserError, match=r"lacks extra_32x32\.mat"):
        SVHN(data_root=str(svhn), split="extra")
    with pytest.raises(UserError, match="split='val'"):
        SVHN(data_root=str(svhn), split="val")


def test_a_masked_vit_trains_tests_and_predicts(svhn, tmp_path):
    cfg = load_config("gmm_vit_svhn", data=svhn, overrides=[*IN_PROCESS, "train_cfg.max_epochs=1"])
    cfg.model.network.arch = {"embed_dim": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "mlp_ratio": 1}
    train(cfg, tmp_path / "run")
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    assert "accuracy/top1" in evaluate(cfg, checkpoint)
    write_image(tmp_path / "picture.png", np.full((48, 40, 3), 90, np.uint8))
    (record,) = ClassificationPredictor(cfg, checkpoint).predict(
        [tmp_path / "picture.png"], tmp_path / "out", quiet=True
    )
    assert record["class"] in set("0123456789")
