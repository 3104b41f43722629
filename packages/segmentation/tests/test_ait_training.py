"""AiT's way through the commands: samples, a tokenizer, a resumed training, a test, predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from opsin.core.engine import runner
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.dense_prediction.samples import write

pytestmark = pytest.mark.xdist_group("ait_training")  # the training that they share is done once

LOADERS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]


def config(name: str, data: Path, steps: int, *overrides: str, total: int | None = None) -> Config:
    total = total or steps
    schedule = [
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={total}",
        f"default_hooks.checkpoint.interval={steps}",
        f"param_scheduler.1.end={total}",
    ]
    return load_config(name, data=data, overrides=[*LOADERS, *schedule, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    write(folder, train=80, val=12)
    return folder


@pytest.fixture(scope="module")
def tokenizer(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the first stage."""
    work = tmp_path_factory.mktemp("tokenizer")
    runner.train(config("ait_tokenizer_depth_samples", data, 150), work)
    return work / "iter_150.pth"


@pytest.fixture(scope="module")
def trained(data: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the second stage, resumed half way."""
    work = tmp_path_factory.mktemp("solver")
    given = f"model.depth.checkpoint={tokenizer}"
    runner.train(config("ait_depth_samples", data, 50, given, total=100), work)
    runner.train(config("ait_depth_samples", data, 100, given), work, resume=True)
    return work / "iter_100.pth"


def constant_baseline(data: Path) -> float:
    """RMSE of the mean depth of the training pictures everywhere."""
    depths = {
        split: [np.asarray(Image.open(p)) / 1000 for p in sorted((data / split / "depth").iterdir())]
        for split in ("train", "val")
    }
    mean = np.concatenate([d[d > 0] for d in depths["train"]]).mean()
    return float(np.mean([np.sqrt(np.mean((d[d > 0] - mean) ** 2)) for d in depths["val"]]))


def test_two_short_trainings_beat_the_mean_depth(
    data: Path, tokenizer: Path, trained: Path, tmp_path: Path
) -> None:
    baseline = constant_baseline(data)
    limit = runner.test(config("ait_tokenizer_depth_samples", data, 1), tokenizer, work_dir=tmp_path / "a")
    reached = runner.test(config("ait_depth_samples", data, 1), trained, work_dir=tmp_path / "b")
    assert limit["depth/rmse"] < 0.8 * baseline
    assert reached["depth/rmse"] < 0.85 * baseline


def test_the_tokenizer_stays_as_it_was(tokenizer: Path, trained: Path) -> None:
    first = torch.load(tokenizer, weights_only=False)["state_dict"]
    second = torch.load(trained, weights_only=False)["state_dict"]
    assert all(torch.equal(second[f"depth_head.{name}"], value) for name, value in first.items())


def test_prediction_writes_millimetres_and_a_picture_with_a_scale(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    task = get_task("dense_prediction")
    predictor = task.load_predictor()(config("ait_depth_samples", data, 1), trained)
    Image.fromarray(np.full((60, 43, 3), 90, np.uint8)).save(tmp_path / "tall.png")
    picture = sorted((data / "val/rgb").iterdir())[0]
    predictor.predict([picture, tmp_path / "tall.png"], tmp_path / "out", quiet=True)
    depth = np.asarray(Image.open(tmp_path / f"out/depth/{picture.stem}.png"))
    assert depth.shape == (96, 128) and 500 < np.median(depth) < 10_000
    assert np.asarray(Image.open(tmp_path / "out/depth/tall.png")).shape == (60, 43)
    records = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert records[0]["depth"]["nearest"] > 0
    assert (tmp_path / f"out/pictures/{picture.stem}.png").is_file()


def test_a_solver_without_a_trained_tokenizer_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer for depth is untrained"):
        runner.train(config("ait_depth_samples", data, 1, total=50), tmp_path)


def test_the_published_list_files_are_read(data: Path, tmp_path: Path) -> None:
    names = [path.stem for path in sorted((data / "val/rgb").iterdir())[:2]]
    (data / "test.txt").write_text("".join(f"val/rgb/{n}.jpg val/depth/{n}.png 518.8579\n" for n in names))
    cfg = config("ait_tokenizer_depth_samples", data, 1, "test_dataloader.dataset.data_prefix.rgb=''")
    cfg.test_dataloader.dataset.update(ann_file="test.txt", data_prefix={})
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 2 and dataset[0]["data_samples"].gt_depth_map.data.max() > 0.1


def test_a_strip_of_depth_takes_the_place_of_the_picture() -> None:
    np.random.seed(0)
    cut = TRANSFORMS.build(dict(type="opsin.CutDepth", p=1.0, max_depth=10.0))
    image, depth = np.full((4, 40, 3), 7, np.uint8), np.full((4, 40), 5.0, np.float32)
    out = cut.transform({"img": image, "gt_depth": depth})["img"]
    changed = (out == 128).all((0, 2))
    assert 0 < changed.sum() < 40 and (np.diff(np.flatnonzero(changed)) == 1).all()
    assert (out[:, ~changed] == 7).all() and (image == 7).all()


@pytest.mark.parametrize("name", get_system("ait").configs)
def test_every_config_builds(name: str) -> None:
    cfg = load_config(name)
    assert cfg.task == "dense_prediction"
    with torch.device("meta"):
        build_model(cfg)


def test_listed_configs_are_those_on_disk() -> None:
    on_disk = [name for name in get_task("dense_prediction").configs() if name.startswith("ait_")]
    assert sorted(on_disk) == sorted(get_system("ait").configs)
