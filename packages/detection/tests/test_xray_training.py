"""SDANet learns the simulated sample data; the inspector's report; the ordinary commands."""

import csv
import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.detection.predictor import DetectionPredictor
from opsin.detection.xray.classes import CLASSES
from opsin.detection.xray.datasets.pidray import JSON_FILES
from opsin.detection.xray.predictor import XrayPredictor, banner
from opsin.detection.xray.samples import write

pytestmark = pytest.mark.xdist_group("xray_training")  # the training that they share is done once

NAME = "mask_rcnn_sdanet_xray_samples"


@pytest.fixture(scope="module")
def xray(tmp_path_factory):
    """The sample data, as one class `item`, so that little training shows."""
    folder = tmp_path_factory.mktemp("xray")
    write(folder)
    for file in JSON_FILES.values():
        content = json.loads((folder / file).read_text())
        content["categories"] = [{"id": 1, "name": "item"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        (folder / file).write_text(json.dumps(content))
    return folder


def config(xray, epochs, *more):
    cfg = load_config(
        NAME,
        data=xray,
        overrides=[
            "model.roi_head.bbox_head.num_classes=1",
            "model.roi_head.mask_head.num_classes=1",
            "train_dataloader.num_workers=0",
            "train_dataloader.persistent_workers=False",
            "train_dataloader.dataset.indices=64",
            "test_dataloader.dataset.indices=48",  # easy and hard
            "val_dataloader.dataset.indices=4",
            "val_evaluator.type=opsin.CocoAP",
            "optim_wrapper.optimizer.lr=2e-3",
            "param_scheduler.0.end=16",
            "param_scheduler.1.T_max=6",
            f"train_cfg.max_epochs={epochs}",
            "train_cfg.val_interval=100",
            *more,
        ],
    )
    for kind in ("train", "val", "test"):
        cfg[f"{kind}_dataloader"].dataset.metainfo = {"classes": ("item",), "palette": [(214, 0, 28)]}
    return cfg


@pytest.fixture(scope="module")
def trained(xray, tmp_path_factory):
    """A run of five epochs, resumed for a sixth."""
    work_dir = tmp_path_factory.mktemp("sdanet")
    train(config(xray, 5), work_dir)
    runner = train(config(xray, 6), work_dir, resume=True)
    assert (runner.epoch, runner.iter) == (6, 96)
    return work_dir / "epoch_6.pth"


def test_training_finds_items_and_tells_the_parts_apart(xray, trained, tmp_path):
    cfg = config(xray, 6)
    init_default_scope(cfg.default_scope)
    torch.save({"meta": {}, "state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "untrained.pth")
    before = evaluate(cfg, tmp_path / "untrained.pth")
    after = evaluate(cfg, trained)
    assert before["coco/bbox_mAP_50"] < 0.02
    assert after["coco/bbox_mAP_50"] > 0.1
    assert after["coco/easy/bbox_mAP_50"] > 0.2
    assert after["coco/easy/segm_mAP_50"] > 0.15
    assert after["coco/easy/bbox_mAP_50"] > after["coco/hard/bbox_mAP_50"]  # items hide each other


# The report.


def result(*rows, size=(60, 80)):
    """A result of given class, score and box."""
    masks = torch.zeros(len(rows), *size, dtype=torch.bool)
    for mask, (_, _, (x1, y1, x2, y2)) in zip(masks, rows, strict=True):
        mask[y1:y2, x1:x2] = True
    found = InstanceData(
        labels=torch.tensor([CLASSES.index(name) for name, _, _ in rows], dtype=torch.int64),
        scores=torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        bboxes=torch.tensor([box for _, _, box in rows], dtype=torch.float32).reshape(-1, 4),
        masks=masks,
    )
    return DetDataSample(pred_instances=found)


@pytest.fixture(scope="module")
def inspector():
    cfg = load_config(NAME)
    cfg.alarm_above = {"Gun": 0.3, "Lighter": 0.9}
    return XrayPredictor(cfg, None)


FOUND = (
    ("Lighter", 0.8, (5, 5, 15, 15)),
    ("Gun", 0.35, (20, 10, 60, 40)),
    ("Knife", 0.45, (40, 30, 70, 50)),
    ("Gun", 0.7, (1, 40, 30, 55)),
)


def test_each_class_alarms_above_its_own_threshold(inspector):
    picture = np.full((60, 80, 3), 200, np.uint8)
    record = inspector.record(result(*FOUND), picture, "a.png")
    assert record["alarm"] is True
    assert record["counts"] == {"Gun": 2}
    items = record["items"]
    assert [(i["class"], i["alarm"]) for i in items] == [
        ("Lighter", False), ("Gun", True), ("Knife", False), ("Gun", True)
    ]  # fmt: skip
    assert items[1] == {
        "class": "Gun",
        "score": 0.7,
        "box": [1.0, 40.0, 30.0, 55.0],
        "area": 435,
        "alarm": True,
    }
    assert len(record["detections"]) == 4


def test_picture_says_what_raises_the_alarm(inspector):
    picture = np.full((60, 80, 3), 200, np.uint8)
    alarm, clear = inspector.picture(result(*FOUND), picture), inspector.picture(result(), picture)
    assert alarm.shape == clear.shape
    assert alarm[0, 0].tolist() == [214, 0, 28]
    assert clear[0, 0].tolist() == [0, 128, 60]
    height = banner(alarm.shape[1], "").shape[0]
    assert (clear[height:] == 200).all()
    assert (alarm[height:] != 200).any()


def test_nothing_above_its_threshold_is_clear(inspector):
    record = inspector.record(result(("Lighter", 0.8, (5, 5, 15, 15))), np.zeros((60, 80, 3), np.uint8), "a")
    assert (record["alarm"], record["counts"]) == (False, {})
    assert record["items"][0]["alarm"] is False


def test_unknown_class_in_the_thresholds_is_told():
    cfg = load_config(NAME)
    cfg.alarm_above = {"Knive": 0.3}
    with pytest.raises(UserError, match="unknown class in alarm_above 'Knive'; did you mean Knife"):
        XrayPredictor(cfg, None)


def test_report_is_written_for_people_and_programs(inspector, tmp_path):
    picture = np.zeros((60, 80, 3), np.uint8)
    records = [
        {"file": "a.png", **inspector.record(result(*FOUND), picture, "a.png")},
        {"file": "b.png", **inspector.record(result(), picture, "b.png")},
        {"file": "c.png", "error": "image c.png is empty"},
    ]
    inspector.finish(records, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    summary = report["summary"]
    assert (summary["pictures"], summary["alarms"], summary["unreadable"]) == (3, 1, 1)
    assert summary["counts"] == {"Gun": 2}
    assert (summary["alarm_above"]["Gun"], summary["alarm_above"]["Baton"]) == (0.3, 0.5)
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert [row["alarm"] for row in rows] == ["1", "0", ""]
    assert (rows[0]["Gun"], rows[0]["items"], rows[0]["highest_score"]) == ("2", "Gun:2", "0.8")
    assert rows[2]["error"] == "image c.png is empty"
    assert "items" not in json.loads((tmp_path / "images.json").read_text())["images"][0]
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 4


# The ordinary commands.


def test_commands_predict_whole_pictures_and_skip_damaged_ones(xray, trained, tmp_path):
    folder = tmp_path / "in"
    for index in (1, 2):
        write_image(folder / f"{index}.png", read_image(xray / "easy" / f"xray_easy0000{index}.png"))
    (folder / "broken.png").write_bytes(b"not a picture")
    config(xray, 6).dump(tmp_path / "item.py")
    arguments = [
        "predict",
        str(tmp_path / "item.py"),
        str(trained),
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    told = CliRunner().invoke(app, [*arguments, "--skip-bad"])
    assert told.exit_code == 0, told.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["summary"]["pictures"] == 3
    assert report["summary"]["unreadable"] == 1
    with Image.open(tmp_path / "out" / "pictures" / "1.png") as picture:
        assert picture.size[0] >= 160


def test_large_pictures_are_inspected_in_tiles(xray, trained):
    cfg = config(xray, 6)
    small = [read_image(xray / "easy" / f"xray_easy0000{i}.png")[:128, :144] for i in (1, 2, 3, 4)]
    large = np.concatenate([np.concatenate(small[:2], 1), np.concatenate(small[2:], 1)])
    whole = DetectionPredictor(cfg, trained)
    cfg.tiles = {"size": 160, "overlap": 48}
    tiled = DetectionPredictor(cfg, trained)
    found = tiled.infer(large, "large.png").pred_instances
    assert found.masks.shape[1:] == large.shape[:2]
    assert len(found) <= 100
    one = small[0]
    assert torch.equal(
        tiled.infer(one, "a").pred_instances.bboxes, whole.infer(one, "a").pred_instances.bboxes
    )
    inside = (found.bboxes[:, 2] <= large.shape[1]) & (found.bboxes[:, 3] <= large.shape[0])
    assert inside.all()
