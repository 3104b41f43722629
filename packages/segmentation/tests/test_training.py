"""The way of the whole package: picture files to a trained, resumed, evaluated model and to predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.evaluation import IoUMetric
from PIL import Image
from stock_data import write_ade20k

from opsin.core.engine import runner
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.predictor import SegmentationPredictor
from opsin.segmentation.samples import CLASSES, write

pytestmark = pytest.mark.xdist_group("segmentation_training")  # the training that they share is done once

TINY = (
    "model.backbone.arch.depths=[1,1,1,1]",
    "model.backbone.arch.dims=[8,16,24,32]",
    "model.decode_head.in_channels=[8,16,24,32]",
    "model.decode_head.channels=16",
    "model.auxiliary_head.in_channels=24",
    "model.auxiliary_head.channels=16",
    "train_dataloader.batch_size=4",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "test_dataloader.num_workers=0",
    "test_dataloader.persistent_workers=False",
)


def config(data: Path, *overrides: str, name: str = "upernet_convnext_samples") -> Config:
    return load_config(name, data=data, overrides=[*TINY, *overrides])


def steps(count: int) -> tuple[str, ...]:
    return (
        f"train_cfg.max_iters={count}",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "default_hooks.logger.interval=1",
    )


@pytest.fixture(scope="module")
def trained(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of four iterations, the last two of them resumed."""
    work = tmp_path_factory.mktemp("work")
    runner.train(config(samples, *steps(2)), work)
    runner.train(config(samples, *steps(4)), work, resume=True)
    return work


def test_resumed_training_gives_the_weights_of_an_uninterrupted_one(
    samples: Path, trained: Path, tmp_path: Path
) -> None:
    whole = runner.train(config(samples, *steps(4)), tmp_path)
    resumed = torch.load(trained / "iter_4.pth", weights_only=False)["state_dict"]
    assert resumed.keys() == whole.model.state_dict().keys()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed[name], value), name


def test_test_reports_the_mean_iou(samples: Path, trained: Path) -> None:
    metrics = runner.test(config(samples), trained / "iter_4.pth")
    assert {"mIoU", "mAcc", "aAcc"} <= metrics.keys()
    assert 0 < metrics["mIoU"] < 100


def test_prediction_writes_masks_pictures_and_areas(samples: Path, trained: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    shutil.copy(samples / "images/val/0000.jpg", odd)
    Image.fromarray(np.full((37, 53), 128, np.uint8)).save(odd / "grey.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(odd / "pixel.png")
    predictor = SegmentationPredictor(config(samples), trained / "iter_4.pth")
    predictor.predict([odd], tmp_path / "out")
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert written["classes"] == list(CLASSES)
    assert len(written["images"]) == 3
    for record, (name, shape) in zip(
        written["images"], {"0000": (128, 128), "grey": (37, 53), "pixel": (1, 1)}.items(), strict=True
    ):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
        assert mask.shape == shape and mask.max() < len(CLASSES)
        assert record["areas"] == {CLASSES[label]: count for label, count in _counts(mask) if count}
        picture = np.asarray(Image.open(tmp_path / f"out/pictures/{name}.png"))
        assert picture.shape[0] >= shape[0] and picture.shape[1] > shape[1]


def _counts(mask: np.ndarray) -> list[tuple[int, int]]:
    counts = np.bincount(mask.ravel(), minlength=len(CLASSES))
    return sorted(enumerate(counts.tolist()), key=lambda item: (-item[1], item[0]))


def test_head_with_another_number_of_classes_is_refused(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.decode_head has num_classes=5, but the data have 7"):
        runner.train(config(samples, *steps(2), "model.decode_head.num_classes=5"), tmp_path)


def test_label_outside_the_classes_stops_the_training_by_name(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples, tmp_path / "data")
    for path in (tmp_path / "data/masks/train").iterdir():
        Image.fromarray(np.full((128, 128), 77, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"masks/train/\d+.png holds label 77, outside the 7 classes"):
        runner.train(config(tmp_path / "data", *steps(2)), tmp_path / "work")


def test_missing_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"lacks classes.txt"):
        runner.train(config(tmp_path, *steps(2)), tmp_path / "work")


def small_ade20k(name: str, data: Path) -> Config:
    """An ADE20K recipe on pictures of 64 pixels, with a thin network, one iteration long."""
    cfg = load_config(name, data=data)
    dims = [8, 16, 24, 32]
    if cfg.model.backbone.type == "opsin.VisionMamba":
        dims = [16] * 4
        cfg.model.backbone.update(arch={"depth": 4, "embed_dim": 16}, img_size=64)
    elif cfg.model.backbone.type == "opsin.AgentSwin":
        arch = {"depths": [1] * 4, "num_heads": [1] * 4, "agent_num": [4] * 4, "attn_type": "AAAB"}
        cfg.model.backbone.update(arch={"embed_dim": 8, **arch}, window_size=3)
        dims = [8, 16, 32, 64]
    else:
        cfg.model.backbone.arch = {"depths": [1, 1, 1, 1], "dims": dims}
    cfg.model.decode_head.update(in_channels=dims, channels=16)
    cfg.model.auxiliary_head.update(in_channels=dims[2], channels=16)
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.test_cfg.update(crop_size=(64, 64), stride=(43, 43))
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[2].transforms[0].max_size = [48, 64, 96]
    pipeline[3].crop_size = (64, 64)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=1, num_workers=0, persistent_workers=False)
        if loader is not cfg.train_dataloader:
            loader.dataset.pipeline[1].transforms[0].max_size = 64
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=1, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


@pytest.mark.parametrize(
    "name", ["upernet_convnext_tiny_ade20k", "upernet_vim_tiny_ade20k", "upernet_agent_swin_tiny_ade20k"]
)
def test_ade20k_recipe_trains_and_tests_on_its_layout(name: str, tmp_path: Path) -> None:
    write_ade20k(tmp_path / "data")
    cfg = small_ade20k(name, tmp_path / "data")
    assert runner.train(cfg, tmp_path / "work").iter == 1
    assert 0 <= runner.test(cfg, tmp_path / "work/iter_1.pth")["mIoU"] <= 100


def test_convnext_recipe_decays_the_learning_rate_by_stages() -> None:
    cfg = load_config("upernet_convnext_tiny_ade20k")
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    names = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert names["backbone.downsample_layers.3.1.weight"] == pytest.approx(1e-4 * 0.9**7)
    assert names["backbone.stages.0.0.dwconv.weight"] == pytest.approx(1e-4 * 0.9**6)
    assert names["backbone.stages.3.2.gamma"] == pytest.approx(1e-4 * 0.9**3)
    assert names["backbone.norm0.weight"] == names["decode_head.conv_seg.weight"] == pytest.approx(1e-4)


def majority_baseline(data: Path) -> float:
    """mIoU in percent of the answer that is the training masks' most frequent class everywhere."""
    masks = np.stack([np.asarray(Image.open(path)) for path in (data / "masks/train").iterdir()])
    most = int(np.bincount(masks[masks < len(CLASSES)]).argmax())
    metric = IoUMetric()
    metric.dataset_meta = {"classes": CLASSES}
    for path in (data / "masks/val").iterdir():
        truth = torch.from_numpy(np.array(Image.open(path), np.int64))[None]
        sample: dict[str, Any] = {
            "gt_sem_seg": {"data": truth},
            "pred_sem_seg": {"data": torch.full_like(truth, most)},
        }
        metric.process({}, [sample])
    return float(metric.compute_metrics(metric.results)["mIoU"])


@pytest.mark.slow
def test_training_beats_the_most_frequent_class_by_far(tmp_path: Path) -> None:
    write(tmp_path / "data", train=160, val=16)
    baseline = majority_baseline(tmp_path / "data")
    cfg = load_config(
        "upernet_convnext_samples",
        data=tmp_path / "data",
        overrides=[
            "train_cfg.max_iters=100",
            "train_cfg.val_interval=100",
            "param_scheduler.0.end=10",
            "param_scheduler.1.begin=10",
            "param_scheduler.1.end=100",
        ],
    )
    trainer = runner.train(cfg, tmp_path / "work")
    reached = float(trainer.message_hub.get_scalar("val/mIoU").current())
    assert baseline < 6
    assert reached > 3 * baseline
