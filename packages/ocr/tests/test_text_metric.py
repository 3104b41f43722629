"""The protocol of ICDAR 2015 on an example worked by hand."""

import zipfile

import numpy as np
import pytest
import torch

from opsin.core.errors import UserError
from opsin.ocr.text_detection.metrics import PolygonHmean


def rectangle(x1, y1, x2, y2):
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


TRIANGLE = np.array([[0, 0], [12, 0], [0, 12]], np.float32)


def picture(name, texts, detections, dont_care=()):
    instances = [{"polygon": p, "text": "", "ignore": False} for p in texts]
    instances += [{"polygon": p, "text": "###", "ignore": True} for p in dont_care]
    scores = torch.tensor([score for score, _ in detections])
    predicted = {"polygons": [polygon for _, polygon in detections], "scores": scores}
    return {"instances": instances, "pred_instances": predicted, "img_path": f"/data/{name}.jpg"}


def example():
    """Five texts in two pictures; what each detection is stands beside it."""
    first = picture(
        "img_1",
        [rectangle(0, 0, 10, 10), rectangle(20, 0, 30, 10)],
        [
            (0.8, rectangle(0, 2, 10, 10)),  # IoU 80/100, but the text is taken by the next: wrong
            (0.9, rectangle(0, 0, 10, 8)),  # IoU 80/100: found
            (0.6, rectangle(21, 0, 34, 10)),  # IoU 90/140: found
            (0.99, rectangle(44, 0, 54, 10)),  # 60 % on the don't-care region: left out
            (0.7, rectangle(45, 0, 55, 10)),  # just half on it: wrong
            (0.3, rectangle(60, 0, 70, 10)),  # wrong, but below the threshold
        ],
        dont_care=[rectangle(40, 0, 50, 10)],
    )
    second = picture(
        "img_2",
        [TRIANGLE, rectangle(50, 50, 60, 60), rectangle(0, 50, 10, 60)],
        [
            (0.95, rectangle(0, 0, 6, 12)),  # IoU 54/90 with the triangle: found
            (0.55, rectangle(0, 50, 10, 55)),  # IoU 50/100, just enough: found
        ],
    )
    return [first, second]


def evaluate(samples, **options):
    metric = PolygonHmean(**options)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def test_the_example_worked_by_hand():
    found = evaluate(example(), sweep=())
    assert found == {
        "text/precision": pytest.approx(4 / 6),
        "text/recall": pytest.approx(4 / 5),
        "text/hmean": pytest.approx(8 / 11),
    }


def test_the_sweep_finds_the_threshold_of_the_highest_hmean():
    found = evaluate(example(), sweep=(0.2, 0.5, 0.65, 0.85), score_threshold=0.85)
    # 0.2: 4 of 7 found, H 2/3; 0.5: 8/11; 0.65: 2 of 4, H 4/9; 0.85: 2 of 2, H 4/7
    assert found["text/hmean"] == pytest.approx(4 / 7)
    assert (found["text/best_hmean"], found["text/best_threshold"]) == (pytest.approx(8 / 11), 0.5)


def test_order_of_detections_does_not_matter():
    samples = example()
    for sample in samples:
        predicted = sample["pred_instances"]
        predicted["polygons"] = predicted["polygons"][::-1]
        predicted["scores"] = predicted["scores"].flip(0)
    assert evaluate(samples) == evaluate(example())


def test_no_detection_is_zero_and_no_text_an_error():
    nothing = picture("a", [TRIANGLE], [])
    assert evaluate([nothing])["text/hmean"] == 0
    unlabelled = picture("a", [], [(0.9, TRIANGLE)], dont_care=[rectangle(0, 0, 50, 50)])
    with pytest.raises(UserError, match="no text to be found; recall is undefined then"):
        evaluate([unlabelled])
    assert evaluate([nothing, unlabelled])["text/precision"] == 0


def test_a_polygon_that_crosses_itself_is_measured_by_its_pieces():
    bow_tie = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], np.float32)  # two triangles, half the square
    found = evaluate([picture("a", [rectangle(0, 0, 10, 10)], [(0.9, bow_tie)])])
    assert found["text/recall"] == 1


def test_a_submission_has_the_corners_of_each_detection_that_counts(tmp_path):
    path = tmp_path / "out" / "submit.zip"
    evaluate(example(), submission=str(path))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["res_img_1.txt", "res_img_2.txt"]
        assert len(archive.read("res_img_1.txt").decode().splitlines()) == 5
        assert archive.read("res_img_2.txt").decode() == "0,0,6,0,6,12,0,12\n0,50,10,50,10,55,0,55\n"
