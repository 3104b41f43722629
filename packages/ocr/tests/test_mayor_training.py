"""MAYOR on the sample data: trained, resumed, tested, and used by the ordinary commands."""

import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image
from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.ocr.text_detection.polygons import mask_to_polygon
from opsin.ocr.text_detection.samples import write_layout
from opsin.registry import DATASETS, METRICS

pytestmark = pytest.mark.xdist_group("mayor_training")  # the training that they share is done once

PUBLISHED = {
    "icdar2015": "mayor_r50_fpn_icdar2015",
    "totaltext": "mayor_r50_fpn_totaltext",
    "ctw1500": "mayor_r50_fpn_ctw1500",
    "msratd500": "mayor_r50_fpn_msra_td500",
    "dast1500": "mayor_r50_fpn_dast1500",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Words in Total-Text's layout, fewer than `opsin samples` writes."""
    folder = tmp_path_factory.mktemp("text")
    write_layout(folder / "totaltext", "totaltext", (64, 6), np.random.default_rng(0))
    return folder


def config(words, epochs, *more):
    return load_config("mayor_tiny_samples", data=words, overrides=[f"train_cfg.max_epochs={epochs}", *more])


@pytest.fixture(scope="module")
def trained(words, tmp_path_factory):
    """A run that is stopped and resumed."""
    work_dir = tmp_path_factory.mktemp("mayor")
    epochs = 9
    change = [f"param_scheduler.1.T_max={epochs}", "param_scheduler.0.end=10", "train_cfg.val_interval=100"]
    train(config(words, epochs - 1, *change), work_dir)
    runner = train(config(words, epochs, *change), work_dir, resume=True)
    assert (runner.epoch, runner.iter) == (epochs, epochs * 8)
    return work_dir / f"epoch_{epochs}.pth"


def regions(picture):
    """Text without learning: OpenCV's stable regions, as they come, closed to words."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for pixels in cv2.MSER_create().detectRegions(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[0]:
        mask[pixels[:, 1], pixels[:, 0]] = 1
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(closed)
    outlines = (mask_to_polygon(labels == label) for label in range(1, count))
    return [outline for outline in outlines if outline is not None]


def test_words_of_unseen_pictures_are_found_better_than_by_stable_regions(words, trained):
    cfg = config(words, 1, "model.test_cfg.rcnn.score_thr=0.05")
    metric = METRICS.build(cfg.test_evaluator)
    pictures = DATASETS.build(cfg.test_dataloader.dataset)
    for packed in pictures:
        found = regions(np.ascontiguousarray(packed["inputs"].permute(1, 2, 0)))
        answer = {"polygons": found, "scores": torch.ones(len(found))}
        metric.process(None, [{**packed["data_samples"].metainfo, "pred_instances": answer}])
    baseline = metric.evaluate(len(pictures))
    learned = evaluate(cfg, trained)
    assert baseline["text/hmean"] > 0.05  # it is not nothing
    assert learned["text/best_hmean"] > 1.3 * baseline["text/hmean"]
    assert 0 < learned["text/best_threshold"] < 1


def test_predict_writes_what_was_found(words, trained, tmp_path):
    pictures = words / "totaltext" / "Images" / "Test"
    config(words, 3, "model.test_cfg.rcnn.score_thr=0.05").dump(tmp_path / "words.py")
    told = CliRunner().invoke(
        app,
        ["predict", str(tmp_path / "words.py"), str(trained), str(pictures), "--out", str(tmp_path / "out")],
    )
    assert told.exit_code == 0, told.output
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(records) == 6
    assert sum(len(record["texts"]) for record in records) > 6
    assert len(list((tmp_path / "out" / "results").iterdir())) == 6
    assert read_image(next((tmp_path / "out" / "pictures").iterdir())).ndim == 3


@pytest.mark.parametrize("layout", PUBLISHED)
def test_every_published_layout_trains_tests_and_predicts(layout, tmp_path):
    """The data set of the published config with the small network."""
    write_layout(tmp_path / "data", layout, (2, 1), np.random.default_rng(1))
    published = load_config(PUBLISHED[layout], data=tmp_path / "data")
    cfg = load_config(
        "mayor_tiny_samples", overrides=["train_cfg.max_epochs=1", "train_dataloader.batch_size=2"]
    )
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for key in ("type", "data_root"):
            cfg[loader].dataset[key] = published[loader].dataset[key]
    cfg.model.test_cfg.rcnn = published.model.test_cfg.rcnn
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    runner = train(cfg, tmp_path / "run")
    assert runner.iter == 1
    found = runner.test()
    assert 0 <= found["text/hmean"] <= 1
    predicted = get_task("text_detection").load_predictor()(cfg, tmp_path / "run" / "epoch_1.pth")
    picture = next((tmp_path / "data").rglob("*.jpg"))
    record = predicted.predict([picture], tmp_path / "out", quiet=True)[0]
    sizes = {len(text["polygon"]) for text in record["texts"]}
    assert sizes == {4} if published.model.test_cfg.rcnn.rectangles else sizes


def test_each_config_belongs_to_the_system():
    assert sorted(get_task("text_detection").configs()) == sorted(get_system("mayor").configs)


@pytest.mark.parametrize("name", get_system("mayor").configs)
def test_config_builds_its_network(name):
    cfg = load_config(name)
    cfg.model.backbone.init_cfg = None
    with torch.device("meta"):
        model = build_model(cfg)
    head = model.roi_head.mask_head
    count = sum(parameter.numel() for parameter in head.parameters())
    if "tiny" not in name:
        assert count == (2_622_977 if name.startswith("mask_rcnn") else 9_595_696)
    assert (head.target_frame == "proposal") == name.startswith("mask_rcnn")
    assert model.roi_head.bbox_head.num_classes == 1
