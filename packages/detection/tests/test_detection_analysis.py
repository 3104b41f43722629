"""Kinds of errors, confusions and curves against examples counted by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from opsin.detection.metrics.errors import KINDS, ErrorCount, overlaps
from opsin.registry import METRICS


def count(detections, objects, classes=3):
    found = ErrorCount(classes)
    found.add(
        np.array([d[0] for d in detections], np.float32).reshape(-1, 4),
        np.array([d[1] for d in detections], np.float32),
        np.array([d[2] for d in detections], np.int64),
        np.array([o[0] for o in objects], np.float32).reshape(-1, 4),
        np.array([o[1] for o in objects], np.int64),
    )
    return found


BOX = (10, 10, 30, 30)
SHIFTED = (20, 10, 40, 30)  # IoU 1/3 with BOX
FAR = (60, 60, 80, 80)


def test_overlap_of_boxes():
    found = overlaps(np.array([BOX, FAR], np.float32), np.array([BOX, SHIFTED], np.float32))
    assert found.tolist() == [[1.0, pytest.approx(1 / 3)], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("detections", "correct", "kinds"),
    [
        ([(BOX, 0.9, 1)], 1, {}),
        ([(BOX, 0.9, 2)], 0, {"confusion": 1}),
        ([(SHIFTED, 0.9, 1)], 0, {"localisation": 1}),
        ([(SHIFTED, 0.9, 2)], 0, {"both": 1, "missed": 1}),
        ([(BOX, 0.9, 1), (BOX, 0.8, 1)], 1, {"duplicate": 1}),
        ([(FAR, 0.9, 1)], 0, {"background": 1, "missed": 1}),
        ([], 0, {"missed": 1}),
        ([(SHIFTED, 0.9, 1), (BOX, 0.8, 1)], 1, {"localisation": 1}),
    ],
)
def test_each_error_has_its_heading(detections, correct, kinds):
    found = count(detections, [(BOX, 1)])
    assert found.errors == dict.fromkeys(KINDS, 0) | kinds
    assert found.correct == correct


def test_an_image_without_objects_has_only_background():
    found = count([(BOX, 0.9, 0), (FAR, 0.5, 2)], [])
    assert found.errors["background"] == 2
    assert found.matrix[-1].tolist() == [1, 0, 1, 0]


def test_confusions_are_counted_by_true_and_predicted_class():
    found = count([(BOX, 0.9, 2), (FAR, 0.8, 0)], [(BOX, 1), (FAR, 0), ((40, 40, 50, 50), 2)])
    assert found.matrix.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_files_and_numbers_are_written(tmp_path):
    metric = METRICS.build({"type": "opsin.DetectionAnalysis", "out": str(tmp_path / "analysis")})
    metric.dataset_meta = {"classes": ("cat", "dog")}
    sample = {
        "img_id": 1,
        "ori_shape": (100, 100),
        "instances": [
            {"bbox": list(BOX), "bbox_label": 0, "ignore_flag": 0},
            {"bbox": list(FAR), "bbox_label": 1, "ignore_flag": 0},
        ],
        "pred_instances": {
            "bboxes": np.array([BOX, FAR, BOX], np.float32),
            "scores": np.array([0.9, 0.8, 0.1], np.float32),
            "labels": np.array([0, 0, 1]),
        },
    }
    metric.process(None, [sample])
    found = metric.evaluate(1)
    assert found["analysis/correct"] == 1
    assert found["analysis/confusion"] == 1
    content = json.loads((tmp_path / "analysis/analysis.json").read_text())
    assert content["AP_50"] == {"cat": pytest.approx(1.0), "dog": pytest.approx(0.0)}
    assert content["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    for name in ("precision_recall", "confusion"):
        with Image.open(tmp_path / f"analysis/{name}.png") as picture:
            assert min(picture.size) > 200
