"""What `opsin predict` writes of detected text, and pictures that are searched tile by tile."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.tiled import tiles
from opsin.ocr.text_detection.predictor import TextPredictor, result_lines
from opsin.ocr.text_detection.tiling import merge_texts
from opsin.ocr.text_detection.visualization import draw


def rectangle(x1, y1, x2, y2):
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def texts(*rows):
    """Detections of given score and x1, y1, x2, y2."""
    found = InstanceData(
        scores=torch.tensor([row[0] for row in rows], dtype=torch.float32),
        bboxes=torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(rows), dtype=torch.long),
    )
    found.polygons = [rectangle(*row[1:]) for row in rows]
    return found


def places(size, tile, overlap):
    return list(tiles(size, tile, overlap))


def test_texts_of_tiles_are_told_once_in_pixels_of_the_picture():
    left, right = places((100, 180), 100, 20)
    found = merge_texts(
        [
            (left, texts((0.9, 10, 10, 60, 20), (0.8, 82, 40, 98, 50))),
            (right, texts((0.7, 2, 40, 17.5, 50), (0.95, 40, 70, 90, 80))),
        ],
        (100, 180),
    )
    assert [round(s, 2) for s in found.scores.tolist()] == [0.95, 0.9, 0.8]
    assert found.polygons[0][0].tolist() == [120.0, 70.0]
    assert found.bboxes[0].tolist() == [120.0, 70.0, 170.0, 80.0]


def test_a_piece_that_a_border_cut_off_gives_way_to_the_whole_text_however_sure_it_is():
    left, right = places((100, 160), 100, 40)
    found = merge_texts(
        [(left, texts((0.99, 70, 40, 99.5, 50))), (right, texts((0.6, 10, 40, 60, 50)))], (100, 160)
    )
    assert len(found) == 1
    assert found.polygons[0][0].tolist() == [70.0, 40.0]
    assert found.polygons[0][2].tolist() == [120.0, 50.0]


def test_tiles_without_texts_merge_to_none():
    found = merge_texts([(place, texts()) for place in places((100, 180), 100, 20)], (100, 180))
    assert len(found) == 0
    assert found.polygons == []


def test_tilted_neighbours_in_one_box_both_stay():
    upper = np.array([[0, 0], [90, 0], [0, 90]], np.float32)
    lower = np.array([[99, 99], [9, 99], [99, 9]], np.float32)
    found = texts((0.9, 0, 0, 99, 99), (0.8, 0, 0, 99, 99))
    found.polygons = [upper, lower]
    assert len(merge_texts([(places((100, 100), 100, 0)[0], found)], (100, 100))) == 2


def test_result_lines_are_whole_pixels():
    assert result_lines([rectangle(1.4, 2.6, 10, 12), np.arange(10).reshape(5, 2)]) == (
        "1,3,10,3,10,12,1,12\r\n0,1,2,3,4,5,6,7,8,9\r\n"
    )
    assert result_lines([]) == ""


def test_picture_shows_outlines_in_different_colours():
    image = np.full((500, 600, 3), 128, np.uint8)
    drawn = draw(image, [rectangle(50, 50, 200, 100), rectangle(50, 120, 200, 170)])
    assert drawn.shape == image.shape
    assert (image == 128).all()
    assert (drawn[400:] == 128).all()
    first, second = drawn[75, 125], drawn[145, 125]
    assert (first != 128).any()
    assert (first != second).any()
    assert draw(image[:100, :120], []).shape == (500, 600, 3)


@pytest.fixture(scope="module")
def predictor():
    """An untrained detector that keeps whatever it finds."""
    cfg = load_config("mayor_tiny_samples")
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.model.test_cfg.rcnn.max_per_img = 5
    torch.manual_seed(0)
    return TextPredictor(cfg, None)


def test_prediction_files_are_json_result_lines_and_pictures(predictor, tmp_path):
    random = np.random.default_rng(0)
    write_image(tmp_path / "in" / "deep" / "a.png", random.integers(0, 255, (90, 120, 3), np.uint8))
    (tmp_path / "in" / "b.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    records = predictor.predict([tmp_path / "in"], out, on_error="skip", quiet=True)
    told = json.loads((out / "predictions.json").read_text())
    assert told == records
    by_name = {Path(record["file"]).name: record for record in told}
    assert "error" in by_name["b.jpg"]
    found = by_name["a.png"]
    assert (found["width"], found["height"]) == (120, 90)
    assert found["texts"]
    assert all(len(text["polygon"]) >= 4 for text in found["texts"])
    lines = (out / "results" / "deep" / "res_a.txt").read_text().splitlines()
    assert len(lines) == len(found["texts"])
    first = np.array(lines[0].split(","), int).reshape(-1, 2)
    assert np.abs(first - np.array(found["texts"][0]["polygon"])).max() <= 0.55
    assert read_image(out / "pictures" / "deep" / "a.png").shape[1] % 120 == 0


def test_pictures_larger_than_a_tile_are_searched_in_tiles(predictor):
    picture = np.random.default_rng(0).integers(0, 255, (150, 260, 3), np.uint8)
    predictor.cfg.tiles = {"size": 160, "overlap": 40}
    found = predictor.infer(picture, Path("large.png"))
    predictor.cfg.tiles = None
    assert isinstance(found, DetDataSample)
    corners = np.concatenate(found.pred_instances.polygons)
    assert corners[:, 0].max() > 160
    assert (corners <= (260, 150)).all()
