"""The way of the dense task: files to a trained, resumed, evaluated model, to maps and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from opsin.core.data import read_image
from opsin.core.engine import runner
from opsin.core.engine.config import load_config
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import DATASETS, MODELS
from opsin.segmentation.dense_prediction.datasets.nyuv2 import read_depth
from opsin.segmentation.dense_prediction.metrics import depth_errors
from opsin.segmentation.dense_prediction.predictor import DensePredictor
from opsin.segmentation.dense_prediction.samples import CLASSES, HEIGHT, WIDTH, write

pytestmark = pytest.mark.xdist_group("dense_prediction_training")  # the training that they share is done once

NO_WORKERS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]
METRICS = {
    "depth": {"depth/rmse", "depth/abs_rel", "depth/log10", "depth/d1", "depth/d2", "depth/d3"},
    "normals": {"normals/mean", "normals/median", "normals/rmse", "normals/11.25", "normals/30"},
    "semantic": {"mIoU"},
}


def config(kind: str, data: Path, steps: int, interval: int) -> Config:
    short = [
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={interval}",
        f"default_hooks.checkpoint.interval={interval}",
        "default_hooks.logger.interval=1",
        "train_dataloader.batch_size=2",
    ]
    return load_config(f"polymax_{kind}_samples", data=data, overrides=[*NO_WORKERS, *short])


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    write(folder, train=4, val=2)
    return folder


@pytest.fixture(scope="module", params=list(METRICS))
def trained(
    request: pytest.FixtureRequest, rooms: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A kind of output, and the work dir of two iterations, the second one resumed."""
    kind = str(request.param)
    work = tmp_path_factory.mktemp(kind)
    runner.train(config(kind, rooms, 1, 1), work)
    assert runner.train(config(kind, rooms, 2, 1), work, resume=True).iter == 2
    return kind, work


def test_run_is_evaluated_and_predicts_maps_and_pictures(
    trained: tuple[str, Path], rooms: Path, tmp_path: Path
) -> None:
    kind, work = trained
    cfg = config(kind, rooms, 2, 1)
    assert METRICS[kind] <= runner.test(cfg, work / "iter_2.pth").keys()
    given = tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    shutil.copy(rooms / "val/rgb/0000.jpg", given / "deep/room.jpg")
    Image.fromarray(np.full((37, 53), 128, np.uint8)).save(given / "grey.png")
    DensePredictor(cfg, work / "iter_2.pth").predict([given], tmp_path / "out", quiet=True)
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [(r["height"], r["width"]) for r in written["images"]] == [(HEIGHT, WIDTH), (37, 53)]
    folder = {"depth": "depth", "normals": "normals", "semantic": "labels"}[kind]
    for name, shape in (("deep/room", (HEIGHT, WIDTH)), ("grey", (37, 53))):
        path = tmp_path / f"out/{folder}/{name}.png"
        assert read_image(path).shape[:2] == shape
        assert read_image(tmp_path / f"out/pictures/{name}.png").shape[1] > shape[1]
        if kind == "depth":
            metres = read_depth(path) / 1000
            record = next(r for r in written["images"] if Path(r["file"]).stem == path.stem)
            assert record["depth"]["farthest"] == pytest.approx(metres.max(), abs=1e-3)
    if kind == "semantic":
        assert written["classes"] == list(CLASSES)


@pytest.mark.parametrize("name", get_system("polymax").configs)
def test_every_config_builds(name: str) -> None:
    cfg = load_config(name)
    assert cfg.task == "dense_prediction"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.output.channels == {"depth": 1, "normals": 3}.get(
        name.split("_")[-2], 40 if "nyuv2" in name else 6
    )


@pytest.mark.parametrize("kind", METRICS)
def test_recipes_augmentation_gives_odd_crops_with_their_truth(kind: str, rooms: Path) -> None:
    cfg = load_config(f"polymax_convnext_large_{kind}_nyuv2", data=rooms)
    packed = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert packed["inputs"].shape == (3, 481, 641)
    truth = {"depth": "gt_depth_map", "normals": "gt_normals", "semantic": "gt_sem_seg"}[kind]
    assert packed["data_samples"].get(truth).shape == (481, 641)


def test_listed_configs_are_those_on_disk() -> None:
    listed = {name for name in get_task("dense_prediction").configs() if name.startswith("polymax")}
    assert sorted(listed) == sorted(get_system("polymax").configs)


def same_depth_everywhere(data: Path) -> float:
    """RMSE in metres of the answer that is, at each pixel, the mean training depth there."""
    maps = np.stack([read_depth(path) / 1000 for path in sorted((data / "train/depth").iterdir())])
    mean = maps.sum(0) / (maps > 0).sum(0).clip(min=1)
    errors = []
    for path in (data / "val/depth").iterdir():
        truth = read_depth(path) / 1000
        known = (truth > 0) & (mean > 0)
        errors.append(depth_errors(mean[known], truth[known])["rmse"])
    return float(np.mean(errors))


@pytest.mark.slow
def test_training_beats_the_mean_depth_of_each_pixel(tmp_path: Path) -> None:
    write(tmp_path / "data", train=160, val=24)
    cfg = load_config(
        "polymax_depth_samples",
        data=tmp_path / "data",
        overrides=[
            *NO_WORKERS,
            "train_cfg.max_iters=80",
            "train_cfg.val_interval=80",
            "param_scheduler.1.end=80",
            "default_hooks.checkpoint.interval=80",
        ],
    )
    trainer = runner.train(cfg, tmp_path / "work")
    reached = float(trainer.message_hub.get_scalar("val/depth/rmse").current())
    assert reached < 0.8 * same_depth_everywhere(tmp_path / "data")
