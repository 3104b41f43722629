"""A Gaussian adaptive head on a frozen encoder: features kept, training, testing, predicting, importance."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.classification.predictor import ClassificationPredictor
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.published import read_checkpoint

QUICK = ["train_cfg.max_epochs=2", "train_cfg.val_interval=1", "train_dataloader.batch_size=8"]
IN_PROCESS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]


def config(data: Path, cache: Path):
    overrides = [*QUICK, *IN_PROCESS, f"model.network.cache={cache}"]
    return load_config("gaussian_adaptive_attention_mini_samples", data=data, overrides=overrides)


@pytest.fixture(scope="module")
def trained(few_samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    runner = train(config(few_samples, folder / "features"), folder / "run")
    return folder, runner


def test_each_picture_is_encoded_once(trained):
    folder, _ = trained
    (encoder,) = (folder / "features").iterdir()
    assert encoder.name.startswith("ConvNeXt-")
    assert len(list(encoder.glob("*.npy"))) == 4 * (6 + 2)  # four classes, six to train and two to validate


def test_the_encoder_keeps_its_weights(trained):
    folder, _ = trained
    first, second = (read_checkpoint(folder / "run" / f"epoch_{epoch}.pth") for epoch in (1, 2))
    moved = {name.split(".")[1] for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"head"}


def test_importance_of_layers_is_exported_as_a_table(trained):
    folder, _ = trained
    with (folder / "run" / "importance_factors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["0", "1", "2", "3"]
    factors = [float(row["importance_factor"]) for row in rows]
    assert (min(factors), max(factors)) == (0.0, 1.0)


def test_it_is_evaluated_and_predicts_alike(trained, few_samples, tmp_path):
    folder, _ = trained
    cfg = config(few_samples, tmp_path / "other_features")
    metrics = evaluate(cfg, folder / "run" / "epoch_2.pth")
    predictor = ClassificationPredictor(cfg, folder / "run" / "epoch_2.pth")
    records = predictor.predict([few_samples / "val"], tmp_path / "out", quiet=True)
    right = [record["class"] == Path(record["file"]).parent.name for record in records]
    assert 100 * np.mean(right) == pytest.approx(metrics["accuracy/top1"])
