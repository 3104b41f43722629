"""Prediction walks files, folders and videos, names its outputs after them, and survives bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.model import BaseModel

from opsin.core.data.image import read_image, write_image
from opsin.core.engine.predictor import Image, Predictor, find_sources
from opsin.core.errors import UserError
from opsin.registry import MODELS, TRANSFORMS


@TRANSFORMS.register_module()
class PackBrightness(BaseTransform):
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        return {"inputs": torch.from_numpy(results["img"].copy())}


@MODELS.register_module()
class Brightness(BaseModel):
    """Mean of the red channel, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs: list[torch.Tensor], mode: str = "tensor") -> list[float]:
        return [float(self.gain * picture[..., 0].float().mean()) for picture in inputs]


class BrightnessPredictor(Predictor):
    def record(self, result: float, image: Image, path: Path) -> dict[str, Any]:
        return {"red": result}

    def picture(self, result: float, image: Image) -> Image:
        return 255 - image


@pytest.fixture
def predictor() -> BrightnessPredictor:
    pipeline = [{"type": "opsin.LoadImage"}, {"type": "LoadAnnotations"}, {"type": "PackBrightness"}]
    cfg = Config({"model": {"type": "Brightness"}, "predict_pipeline": pipeline, "default_scope": "opsin"})
    return BrightnessPredictor(cfg, None)


def _red(value: int, height: int = 48, width: int = 64) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = value
    return image


def _video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for index in range(frames):
        writer.write(_red(50 * index)[..., ::-1])
    writer.release()


def test_images_of_a_folder_keep_their_places(predictor: BrightnessPredictor, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", _red(200))
    write_image(tmp_path / "in" / "deep" / "a.png", _red(100))
    records = predictor.predict([tmp_path / "in"], tmp_path / "out", quiet=True)
    assert [record["red"] for record in records] == [200, 100]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == records
    assert read_image(tmp_path / "out" / "pictures" / "a.png")[0, 0].tolist() == [55, 255, 255]
    assert (tmp_path / "out" / "pictures" / "deep" / "a.png").is_file()


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_image(tmp_path / folder / "a.png", _red(1))
    sources = find_sources([tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"])
    assert [str(source.name) for source in sources] == ["a.png", "a_2.png"]


def test_video_is_predicted_frame_by_frame(predictor: BrightnessPredictor, tmp_path: Path) -> None:
    _video(tmp_path / "clip.mp4", 4)
    records = predictor.predict([tmp_path / "clip.mp4"], tmp_path / "out", quiet=True)
    assert [record["frame"] for record in records] == [0, 1, 2, 3]
    assert all(abs(record["red"] - 50 * record["frame"]) < 8 for record in records)  # the codec is lossy
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "pictures" / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 64


class LegendPredictor(BrightnessPredictor):
    """Pictures whose legend grows with what was found."""

    def picture(self, result: float, image: Image) -> Image:
        return np.pad(image, ((0, 0), (0, 2 * round(result)), (0, 0)))


def test_video_keeps_frames_whose_pictures_differ_in_size(
    predictor: BrightnessPredictor, tmp_path: Path
) -> None:
    _video(tmp_path / "clip.mp4", 3)
    LegendPredictor(predictor.cfg, None).predict([tmp_path / "clip.mp4"], tmp_path / "out", quiet=True)
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "pictures" / "clip.mp4"))
    frames = 0
    while drawn.read()[0]:
        frames += 1
    assert frames == 3


def test_bad_file_stops_after_what_is_done_or_is_skipped(
    predictor: BrightnessPredictor, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.png", _red(10))
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    given = [tmp_path / name for name in ("a.png", "b.png", "c.mp4")]
    with pytest.raises(UserError, match=r"b\.png"):
        predictor.predict(given, tmp_path / "strict", quiet=True)
    assert [r["red"] for r in json.loads((tmp_path / "strict" / "predictions.json").read_text())] == [10]
    records = predictor.predict(given, tmp_path / "lenient", on_error="skip", quiet=True)
    assert [sorted(record) for record in records] == [["file", "red"], ["error", "file"], ["error", "file"]]


def test_inputs_that_are_not_there_or_of_no_known_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder at"):
        find_sources([tmp_path / "none"])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.txt is neither an image nor a video"):
        find_sources([tmp_path / "notes.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in folder"):
        find_sources([tmp_path / "empty"])


def test_output_folder_that_can_not_be_made_is_named(predictor: BrightnessPredictor, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", _red(10))
    with pytest.raises(UserError, match="can't write to"):
        predictor.predict([tmp_path / "a.png"], tmp_path / "a.png" / "out")
