"""The whole way: samples, training, resuming, testing, predicting, for each sample config."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from opsin.classification.predictor import ClassificationPredictor
from opsin.core.data import list_images, read_image
from opsin.core.engine.config import load_config, short_names
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError

QUICK = ["train_cfg.max_epochs=2", "train_cfg.val_interval=1", "train_dataloader.batch_size=8"]
IN_PROCESS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]
SAMPLE_CONFIGS = ["convnext_mini_samples", "vim_mini_samples"]


def config(name: str, data: Path, *overrides: str):
    return load_config(name, data=data, overrides=[*IN_PROCESS, *overrides])


def pixels(folder: Path) -> tuple[np.ndarray, list[str]]:
    paths = list_images(folder)
    return np.stack([read_image(path).ravel() / 255 for path in paths]), [path.parent.name for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_mini_samples", "shvit_mini_samples"])
def test_network_learns_what_a_linear_classifier_on_pixels_cannot(name, samples, tmp_path):
    chance = 100 / len(list((samples / "train").iterdir()))
    linear = 100 * RidgeClassifier(100).fit(*pixels(samples / "train")).score(*pixels(samples / "val"))
    runner = train(config(name, samples, "train_cfg.val_interval=20"), tmp_path)
    reached = runner.message_hub.get_scalar("val/accuracy/top1").current()
    assert chance <= linear < 50
    assert reached > 75, (reached, linear)


@pytest.mark.parametrize("name", SAMPLE_CONFIGS)
def test_train_resume_test_and_predict(name, few_samples, tmp_path):
    cfg = config(name, few_samples, *QUICK)
    train(cfg, tmp_path / "whole")
    halves = config(name, few_samples, *QUICK, "train_cfg.max_epochs=1")
    train(halves, tmp_path / "halves")
    train(cfg, tmp_path / "halves", resume=True)
    whole, resumed = (
        torch.load(tmp_path / run / "epoch_2.pth", weights_only=True) for run in ("whole", "halves")
    )
    assert all(
        torch.equal(whole["state_dict"][key], resumed["state_dict"][key]) for key in whole["state_dict"]
    )

    metrics = evaluate(cfg, tmp_path / "whole" / "epoch_2.pth")
    assert set(metrics) == {"accuracy/top1", "accuracy/top2", "accuracy/class_mean"}

    predictor = ClassificationPredictor(cfg, tmp_path / "whole" / "epoch_2.pth")
    records = predictor.predict([few_samples / "val"], tmp_path / "out", quiet=True)
    right = [record["class"] == Path(record["file"]).parent.name for record in records]
    assert 100 * np.mean(right) == pytest.approx(metrics["accuracy/top1"])


@pytest.fixture(scope="module")
def trained(few_samples, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trained")
    cfg = config("convnext_mini_samples", few_samples, *QUICK, "train_cfg.max_epochs=1")
    train(cfg, work_dir)
    return cfg, work_dir / "epoch_1.pth"


def test_prediction_files_hold_the_likeliest_classes_by_name(trained, few_samples, tmp_path):
    records = ClassificationPredictor(*trained).predict([few_samples / "val" / "grass"], tmp_path, quiet=True)
    assert json.loads((tmp_path / "predictions.json").read_text()) == records
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for record, row in zip(records, rows, strict=True):
        scores = [entry["score"] for entry in record["top"]]
        assert {entry["class"] for entry in record["top"]} == {"brick", "grass", "petals", "stars"}
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)
        assert (row["file"], row["class1"], row["class5"]) == (record["file"], record["class"], "")
    picture = read_image(tmp_path / "pictures" / "000.png")
    assert picture.shape[1] > picture.shape[0] >= 64


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one_pixel.png", lambda: np.full((1, 1, 3), 7, np.uint8)),
        ("grey.png", lambda: np.full((40, 30), 90, np.uint8)),
        ("deep.png", lambda: np.full((40, 30, 3), 40_000, np.uint16)),
        ("transparent.png", lambda: np.full((30, 90, 4), 120, np.uint8)),
    ],
)
def test_unusual_pictures_are_predicted(trained, tmp_path, name, make):
    cv2.imwrite(str(tmp_path / name), make())
    (record,) = ClassificationPredictor(*trained).predict([tmp_path / name], tmp_path / "out", quiet=True)
    assert len(record["top"]) == 4


def test_an_unreadable_picture_is_named_and_the_others_are_kept(trained, few_samples, tmp_path):
    good, broken = tmp_path / "a.jpg", tmp_path / "b.jpg"
    content = (few_samples / "val" / "brick" / "000.jpg").read_bytes()
    good.write_bytes(content)
    broken.write_bytes(content[: len(content) // 2])
    predictor = ClassificationPredictor(*trained)
    with pytest.raises(UserError, match=r"b\.jpg"):
        predictor.predict([good, broken], tmp_path / "out", quiet=True)
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 1
    records = predictor.predict([good, broken], tmp_path / "skipped", on_error="skip", quiet=True)
    assert [set(record) & {"class", "error"} for record in records] == [{"class"}, {"error"}]


def test_a_checkpoint_with_another_number_of_classes_is_refused(trained, few_samples):
    cfg = config("convnext_mini_samples", few_samples, "model.network.num_classes=7")
    with pytest.raises(UserError, match=r"network\.head\.weight.*\[4, 96\].*\[7, 96\]"):
        ClassificationPredictor(cfg, trained[1])
    with pytest.raises(UserError, match=r"network\.head\.weight"):
        evaluate(cfg, trained[1])


def test_more_classes_in_the_data_than_in_the_network_are_an_error(few_samples, tmp_path):
    cfg = config("convnext_mini_samples", few_samples, *QUICK, "model.network.num_classes=2")
    with pytest.raises(UserError, match=r"network has 2 classes.*num_classes"):
        train(cfg, tmp_path)


def test_a_damaged_training_picture_stops_or_is_skipped_as_asked(few_samples, tmp_path):
    data = tmp_path / "data"
    for source in list_images(few_samples):
        target = data / source.relative_to(few_samples)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (data / "train" / "brick" / "000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/brick/000\.jpg is empty"):
        train(config("convnext_mini_samples", data, *QUICK), tmp_path / "stops")
    cfg = config("convnext_mini_samples", data, *QUICK, "train_cfg.max_epochs=1")
    cfg.train_dataloader.dataset.on_error = "skip"
    train(cfg, tmp_path / "skips")
    assert (tmp_path / "skips" / "epoch_1.pth").is_file()


@pytest.mark.parametrize("name", ["convnext_tiny_imagenet", "vim_tiny_imagenet"])
def test_published_recipes_train_a_step_on_a_small_variant(name, few_samples, tmp_path):
    smaller = {
        "convnext_tiny_imagenet": {"arch": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}},
        "vim_tiny_imagenet": {"arch": {"embed_dim": 16, "depth": 2}},
    }[name]
    cfg = config(name, few_samples, "train_cfg.max_epochs=1", "train_dataloader.batch_size=12")
    cfg.model.network.update(num_classes=4, **smaller)
    runner = train(cfg, tmp_path)
    assert runner.iter == 2
    assert "ema_state_dict" in torch.load(tmp_path / "epoch_1.pth", weights_only=True)


def test_every_config_names_a_network_that_can_be_built():
    own = [name for name, path in short_names().items() if "classification" in path.parts]
    assert set(own) >= {*SAMPLE_CONFIGS, "convnext_tiny_imagenet", "vim_tiny_imagenet"}
