import json

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from rich.progress import Progress

from opsin.core.data.image import write_image
from opsin.core.data.pictures import photographs
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.restoration.predictor import SuperResolutionPredictor
from opsin.restoration.visualization import before_after


@pytest.fixture(scope="module")
def predictor():
    """An untrained network that interpolates, so that results can be told right from wrong."""
    cfg = load_config("hat_tiny_x2_samples", overrides=["model.tile.size=32"])
    predictor = SuperResolutionPredictor(cfg, None)
    predictor.model.init_weights()
    return predictor


@pytest.fixture
def picture():
    return photographs()["coffee"][100:140, 100:151].copy()


def stored(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_folder_without_ground_truth_becomes_pngs_and_pictures(predictor, picture, tmp_path):
    write_image(tmp_path / "in" / "a.png", picture)
    write_image(tmp_path / "in" / "sub" / "b.jpg", picture[:5, :7])
    out = tmp_path / "out"
    records = predictor.predict([tmp_path / "in"], out, quiet=True)
    assert stored(out / "a.png").shape == (80, 102, 3) and stored(out / "sub" / "b.png").shape == (10, 14, 3)
    assert stored(out / "pictures" / "a.png").shape == (80, 2 * 102 + 4, 3)
    assert [(r["size"], r["restored"], r["bits"]) for r in records] == [
        ([51, 40], [102, 80], 8),
        ([7, 5], [14, 10], 8),
    ]
    assert json.loads((out / "predictions.json").read_text())[0]["file"].endswith("a.png")
    enlarged = cv2.resize(picture, (102, 80), interpolation=cv2.INTER_CUBIC)[..., ::-1]
    assert np.abs(stored(out / "a.png").astype(int) - enlarged).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay_sixteen_bits(predictor, picture, tmp_path, suffix):
    grey = picture[..., 1].astype(np.uint16) * 257 + 3
    write_image(tmp_path / f"deep{suffix}", grey)
    predictor.predict([tmp_path / f"deep{suffix}"], tmp_path / "out", quiet=True)
    result = stored(tmp_path / "out" / "deep.png")
    assert result.dtype == np.uint16 and result.shape == (80, 102)
    assert len(np.unique(result)) > 300  # more levels than 8 bits have
    assert abs(int(np.median(result)) - int(np.median(grey))) < 3000


def test_sixteen_bit_colour_stays_colour(predictor, picture, tmp_path):
    write_image(tmp_path / "deep.png", picture.astype(np.uint16) * 257)
    predictor.predict([tmp_path / "deep.png"], tmp_path / "out", quiet=True)
    result = stored(tmp_path / "out" / "deep.png")
    assert result.dtype == np.uint16 and result.shape == (80, 102, 3)
    assert stored(tmp_path / "out" / "pictures" / "deep.png").dtype == np.uint8


def test_grey_stays_grey(predictor, picture, tmp_path):
    write_image(tmp_path / "grey.png", picture[..., 0])
    predictor.predict([tmp_path / "grey.png"], tmp_path / "out", quiet=True)
    assert stored(tmp_path / "out" / "grey.png").shape == (80, 102)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_kept(predictor, picture, tmp_path, mode):
    rgba = np.dstack((picture, np.where(np.arange(51) < 25, 0, 255)[None].repeat(40, 0))).astype(np.uint8)
    Image.fromarray(rgba).convert(mode).save(
        tmp_path / "glass.png", **({"transparency": 0} if mode == "P" else {})
    )
    predictor.predict([tmp_path / "glass.png"], tmp_path / "out", quiet=True)
    result = stored(tmp_path / "out" / "glass.png")
    assert result.shape == (80, 102, 4)
    if mode != "P":
        assert (result[:, :40, 3] == 0).all() and (result[:, 60:, 3] == 255).all()


def test_exif_and_colour_profile_are_kept(predictor, picture, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation] = "nobody", 8
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, icc_profile=icc)
    predictor.predict([tmp_path / "a.jpg"], tmp_path / "out", quiet=True)
    with Image.open(tmp_path / "out" / "a.png") as restored:
        assert restored.size == (80, 102)  # turned upright, once
        assert dict(restored.getexif()) == {ExifTags.Base.Artist: "nobody"}
        assert restored.info["icc_profile"] == icc


def test_videos_are_restored_frame_by_frame(predictor, picture, tmp_path):
    film = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (48, 40))
    for value in (60, 180):
        film.write(np.full((40, 48, 3), value, np.uint8))
    film.release()
    records = predictor.predict([tmp_path / "clip.mp4"], tmp_path / "out", quiet=True)
    assert [(r["frame"], r["restored"]) for r in records] == [(0, [96, 80]), (1, [96, 80])]
    restored = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    frames = [restored.read()[1] for _ in range(2)]
    assert frames[0].shape == (80, 96, 3) and not restored.read()[0]
    assert frames[0].mean() < 90 and frames[1].mean() > 150
    both = cv2.VideoCapture(str(tmp_path / "out" / "pictures" / "clip.mp4"))
    assert both.read()[1].shape == (80, 2 * 96 + 4, 3)


def test_a_terminal_shows_the_tiles_that_are_done(predictor, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    seen = []
    monkeypatch.setattr(Progress, "update", lambda bars, task, **state: seen.append(state))
    write_image(tmp_path / "a.png", picture)
    predictor.predict([tmp_path / "a.png"], tmp_path / "out")
    tiles, passes = 4, 9  # a picture of 51x40 in tiles of 32; two groups of two blocks and an overlapping one
    assert [state["completed"] for state in seen] == list(range(1, seen[-1]["total"] + 1))
    assert seen[-1]["total"] % tiles == 0 and seen[-1]["total"] > tiles * passes
    assert "predict" in capsys.readouterr().err


def test_a_damaged_picture_is_named_or_skipped(predictor, picture, tmp_path):
    write_image(tmp_path / "in" / "a.png", picture)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    with pytest.raises(UserError, match=r"b\.png is truncated"):
        predictor.predict([tmp_path / "in"], tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "a.png").is_file()
    records = predictor.predict([tmp_path / "in"], tmp_path / "out2", on_error="skip", quiet=True)
    assert "b.png is truncated" in records[1]["error"]


def test_a_single_pixel_is_enlarged(predictor, tmp_path):
    write_image(tmp_path / "dot.png", np.full((1, 1, 3), 128, np.uint8))
    predictor.predict([tmp_path / "dot.png"], tmp_path / "out", quiet=True)
    assert np.abs(stored(tmp_path / "out" / "dot.png").astype(int) - 128).max() < 30


def test_before_and_after_stand_side_by_side():
    before, after = np.full((4, 5, 3), 10, np.uint8), np.full((8, 10, 3), 20 << 8, np.uint16)
    shown = before_after(before, after)
    assert shown.shape == (8, 24, 3) and (shown[:, :10] == 10).all() and (shown[:, 14:] == 20).all()
    assert (shown[:, 10:14] == 255).all()
