"""What a person does wrong ends in one line that says what, where and how to mend it, with exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.core.cli import main

CONFIG = "convnext_mini_samples"
QUICK = ("train_cfg.max_epochs=1", "train_dataloader.num_workers=0", "val_dataloader.num_workers=0")


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, _, err = _run(capsys, *arguments)
    assert code == 2, err
    line = err.strip().splitlines()[-1]
    assert line.startswith("opsin: ") and "Traceback" not in err
    return line


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenth of the classification sample data."""
    from opsin.core.task import get_task

    directory = tmp_path_factory.mktemp("mistakes") / "samples"
    get_task("classification").write_samples(directory)
    for folder in directory.glob("*/*"):
        for extra in sorted(folder.iterdir())[6:]:
            extra.unlink()
    return directory


@pytest.fixture(scope="module")
def trained(samples: Path) -> Path:
    """The work dir of a finished training."""
    with pytest.raises(SystemExit) as left:
        main(["train", CONFIG, "--data", str(samples), "--work-dir", str(samples.parent / "work"), *QUICK])
    assert not left.value.code
    return samples.parent / "work"


def test_samples_are_not_written_over_what_is_there(
    capsys: pytest.CaptureFixture[str], samples: Path
) -> None:
    before = sorted(samples.rglob("*"))
    assert "is not an empty folder" in _refused(capsys, "samples", "classification", samples)
    assert sorted(samples.rglob("*")) == before


def test_data_folder_that_lacks_files_says_which(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "train" in _refused(
        capsys, "train", CONFIG, "--data", tmp_path, "--work-dir", tmp_path / "w", *QUICK
    )
    line = _refused(capsys, "train", CONFIG, "--data", tmp_path / "none", "--work-dir", tmp_path / "w")
    assert f"no data folder at {tmp_path / 'none'}" in line


def test_data_that_does_not_fill_a_batch_is_named(
    capsys: pytest.CaptureFixture[str], samples: Path, tmp_path: Path
) -> None:
    line = _refused(
        capsys, "train", CONFIG, "--data", samples, "--work-dir", tmp_path, "train_dataloader.batch_size=25"
    )
    assert "24 samples do not fill one batch of 25" in line


def test_config_of_a_task_that_is_not_installed_names_its_package(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opsin.core import task

    (tmp_path / "scan.py").write_text('task = "medical_volumes"\n')
    monkeypatch.setitem(task.OFFICIAL_PACKAGES, "medical_volumes", "opsin-medical")
    line = _refused(capsys, "train", tmp_path / "scan.py")
    assert "is in opsin-medical, which is not installed; pip install opsin-medical" in line


def test_config_with_an_error_or_an_unknown_type_or_key_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, samples: Path
) -> None:
    (tmp_path / "broken.py").write_text("task = (\n")
    assert "broken.py can't be read" in _refused(capsys, "train", tmp_path / "broken.py")
    (tmp_path / "bare.py").write_text("model = dict()\n")
    assert "does not say its task" in _refused(capsys, "train", tmp_path / "bare.py")
    line = _refused(capsys, "train", CONFIG, "--data", samples, "modle.type=X")
    assert "unknown config key 'modle'; did you mean model" in line
    line = _refused(
        capsys,
        "train",
        CONFIG,
        "--data",
        samples,
        "--work-dir",
        tmp_path / "w",
        "model.type=opsin.ImageClasifier",
    )
    assert "ImageClasifier" in line and "did you mean ImageClassifier" in line
    assert "not of the form key=value" in _refused(capsys, "train", CONFIG, "epochs")


def test_resume_with_nothing_to_resume_is_refused(
    capsys: pytest.CaptureFixture[str], samples: Path, tmp_path: Path
) -> None:
    line = _refused(capsys, "train", CONFIG, "--data", samples, "--work-dir", tmp_path / "new", "--resume")
    assert "nothing to resume" in line


def test_work_dir_in_use_is_refused(
    capsys: pytest.CaptureFixture[str], samples: Path, tmp_path: Path
) -> None:
    from opsin.core.engine.workdir import exclusive, prepare_work_dir

    holder = (
        "import sys; from pathlib import Path; from opsin.core.engine.workdir import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    place = prepare_work_dir(tmp_path / "work")
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        line = _refused(capsys, "train", CONFIG, "--data", samples, "--work-dir", place, *QUICK)
        assert f"in use by process {other.pid}" in line
    finally:
        other.kill()
        other.wait()
    with exclusive(place):  # a killed run does not block the next
        pass


def test_unwritable_work_dir_is_refused(
    capsys: pytest.CaptureFixture[str], samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    line = _refused(capsys, "train", CONFIG, "--data", samples, "--work-dir", tmp_path / "file" / "work")
    assert "can't write to the work dir" in line


@pytest.mark.skipif(torch.cuda.device_count() >= 2, reason="this machine has two GPUs")
def test_gpus_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str], samples: Path) -> None:
    assert "GPU" in _refused(capsys, "train", CONFIG, "--data", samples, "--gpus", 2)


def test_checkpoint_of_another_model_is_refused_by_test_and_predict(
    capsys: pytest.CaptureFixture[str], samples: Path, trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"network.head.weight": torch.zeros(3, 4)}, "meta": {}}, other)
    for line in (
        _refused(capsys, "test", CONFIG, other, "--data", samples, "--work-dir", tmp_path / "t"),
        _refused(capsys, "predict", CONFIG, other, samples / "val", "--out", tmp_path / "o"),
    ):
        assert "is missing" in line or "should be" in line
    (tmp_path / "text.pth").write_text("hello")
    assert "text.pth" in _refused(
        capsys, "predict", CONFIG, tmp_path / "text.pth", samples, "--out", tmp_path / "o"
    )
    whole = next(trained.glob("*.pth")).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "truncated or not a checkpoint" in _refused(
        capsys, "test", CONFIG, tmp_path / "cut.pth", "--data", samples, "--work-dir", tmp_path / "t"
    )


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def pictures(samples: Path, tmp_path: Path) -> Path:
    """Good pictures of every odd kind, and bad ones whose names begin with `bad_`."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.arange(48 * 64 * 4, dtype=np.uint32).reshape(48, 64, 4)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "one_pixel.png")
    Image.fromarray(pixels[..., 0].astype(np.uint8)).save(folder / "grey.png")
    Image.fromarray((pixels[..., 0] * 5 % 65536).astype(np.uint16)).save(folder / "grey16.png")
    Image.fromarray(pixels.astype(np.uint8), "RGBA").save(folder / "alpha.png")
    Image.fromarray(pixels.astype(np.uint8), "CMYK").save(folder / "cmyk.jpg")
    good = next((samples / "val").rglob("*.*")).read_bytes()
    (folder / "bad_truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "bad_empty.png").write_bytes(b"")
    (folder / "bad_text.jpg").write_text("not a picture")
    (folder / "bad_huge.png").write_bytes(_png_header(60_000, 60_000))
    return folder


def test_bad_pictures_are_named_and_odd_ones_are_predicted(
    capsys: pytest.CaptureFixture[str], trained: Path, pictures: Path, tmp_path: Path
) -> None:
    for bad in sorted(pictures.glob("bad_*")):
        line = _refused(capsys, "predict", CONFIG, trained, bad, "--out", tmp_path / "one")
        assert bad.name in line
    code, out, err = _run(
        capsys, "predict", CONFIG, trained, pictures, "--out", tmp_path / "all", "--skip-bad"
    )
    assert code == 0, err
    assert "5 predictions" in out and "4 files skipped" in out
    assert all(bad.name in err for bad in pictures.glob("bad_*"))
    drawn = {path.stem for path in (tmp_path / "all" / "pictures").iterdir()}
    assert drawn == {"one_pixel", "grey", "grey16", "alpha", "cmyk"}


def test_bad_picture_in_the_training_data_is_fatal_or_skipped_by_choice(
    capsys: pytest.CaptureFixture[str], samples: Path, pictures: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(samples, data)
    target = sorted(p for p in (data / "train").rglob("*") if p.is_file())[0]
    target.write_bytes((pictures / "bad_truncated.png").read_bytes())
    arguments = ("train", CONFIG, "--data", data, *QUICK)
    assert target.name in _refused(capsys, *arguments, "--work-dir", tmp_path / "strict")
    code, _, err = _run(
        capsys, *arguments, "--work-dir", tmp_path / "lenient", "train_dataloader.dataset.on_error=skip"
    )
    assert code == 0, err


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation pictures of the detection sample data, COCO json."""
    from opsin.core.task import get_task

    directory = tmp_path_factory.mktemp("boxes") / "samples"
    get_task("detection").write_samples(directory)
    for split, count in (("train", 4), ("val", 2)):
        path = directory / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        content["images"] = content["images"][:count]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        path.write_text(json.dumps(content))
    return directory


def _train_boxes(data: Path, work_dir: Path) -> tuple[object, ...]:
    quick = (*QUICK, "param_scheduler.1.T_max=1", "train_dataloader.batch_size=2")
    return ("train", "retinanet_convnext_samples", "--data", data, "--work-dir", work_dir, *quick)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"category_id": 99}, "has category_id 99"),
        ({"bbox": [5000, 5000, 20, 20]}, "has no area inside the image"),
        ({"bbox": [10, 10, 0, 20]}, "has no area inside the image"),
        ({"bbox": [10, 10, float("nan"), 20]}, "is not four finite numbers"),
    ],
    ids=["wrong class", "outside", "zero area", "nan"],
)
def test_wrong_annotation_is_named(
    capsys: pytest.CaptureFixture[str], boxes: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    path = data / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][1].update(change)
    path.write_text(json.dumps(content))
    line = _refused(capsys, *_train_boxes(data, tmp_path / "work"))
    assert f"{path}, annotation {content['annotations'][1]['id']}" in line and says in line


def test_pictures_without_any_annotation_train(
    capsys: pytest.CaptureFixture[str], boxes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(boxes, data)
    path = data / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    bare = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != bare]
    path.write_text(json.dumps(content))
    code, _, err = _run(capsys, *_train_boxes(data, tmp_path / "work"))
    assert code == 0, err
    assert (tmp_path / "work" / "epoch_1.pth").is_file()


def test_full_disk_ends_in_one_line_and_keeps_the_last_checkpoint(samples: Path, trained: Path) -> None:
    """A limit on the size of files that the weights exceed stands for a disk without room for them."""
    before = (trained / "epoch_1.pth").read_bytes()
    room = len(before) // 2
    arguments = ["train", CONFIG, "--data", str(samples), "--work-dir", str(trained), "--resume", *QUICK[1:]]
    code = (
        f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        f"from opsin.core.cli import main; main({[*arguments, 'train_cfg.max_epochs=2']!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("opsin: ") and "epoch_2.pth" in line and "Traceback" not in done.stderr
    assert (trained / "epoch_1.pth").read_bytes() == before
    assert not (trained / "epoch_2.pth").exists()
    assert not [path for path in trained.rglob("*") if "tmp" in path.suffix]
