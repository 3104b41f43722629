"""The way of the panoptic task: files to a trained, resumed, evaluated model and to COCO's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from opsin.core.engine import runner
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import DATASETS, MODELS
from opsin.segmentation.panoptic.merging import MaskwiseFusionHead
from opsin.segmentation.panoptic.metrics import PQCounts, SegmentMap, compare, evaluate_files
from opsin.segmentation.panoptic.predictor import PanopticPredictor
from opsin.segmentation.samples import CLASSES, THINGS, write

pytestmark = pytest.mark.xdist_group("panoptic_training")  # the training that they share is done once

NO_WORKERS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]
TINY = (
    "model.backbone.arch.depths=[1,1,1,1]",
    "model.backbone.arch.dims=[8,16,24,32]",
    "model.bbox_head.embed_dims=32",
    "model.bbox_head.num_queries=12",
    "model.bbox_head.encoder_layers=1",
    "model.bbox_head.location_layers=2",
    "model.bbox_head.thing_blocks=1",
    "model.bbox_head.stuff_blocks=1",
    "model.bbox_head.rounds=1",
    "model.test_cfg.max_per_img=12",
    "train_dataloader.batch_size=2",
)


def config(data: Path, *overrides: str) -> Config:
    return load_config("panoptic_segformer_convnext_samples", data=data, overrides=[*NO_WORKERS, *overrides])


def steps(count: int) -> tuple[str, ...]:
    return (
        *TINY,
        f"train_cfg.max_iters={count}",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.logger.interval=1",
    )


@pytest.fixture(scope="module")
def trained(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of two iterations, the second of them resumed."""
    work = tmp_path_factory.mktemp("panoptic")
    runner.train(config(samples, *steps(1)), work)
    again = runner.train(config(samples, *steps(2)), work, resume=True)
    assert again.iter == 2
    return work


def test_test_reports_quality_of_things_and_stuff_and_average_precision_if_asked(
    samples: Path, trained: Path
) -> None:
    cfg = config(samples, *steps(2))
    cfg.test_evaluator = [
        *cfg.test_evaluator,
        {
            "type": "mmdet.CocoMetric",
            "ann_file": str(samples / "annotations/instances_val.json"),
            "metric": ["bbox", "segm"],
        },
    ]
    metrics = runner.test(cfg, trained / "iter_2.pth")
    for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        assert 0 <= metrics[f"panoptic/{name}"] <= 100
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= metrics.keys()


def test_prediction_writes_cocos_files_and_pictures(samples: Path, trained: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    (odd / "deep").mkdir(parents=True)
    shutil.copy(samples / "images/val/0000.jpg", odd / "deep")
    Image.fromarray(np.full((37, 53), 128, np.uint8)).save(odd / "grey.png")
    all_stuff = ("model.test_cfg.merging.min_score_stuff=0.0", "model.test_cfg.mask_threshold=0.01")
    cfg = config(samples, *steps(2), *all_stuff)
    PanopticPredictor(cfg, trained / "iter_2.pth").predict([odd], tmp_path / "out", quiet=True)
    content = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert [c["name"] for c in content["categories"]] == list(CLASSES)
    assert sum(c["isthing"] for c in content["categories"]) == len(THINGS)
    assert [a["file_name"] for a in content["annotations"]] == ["deep/0000.png", "grey.png"]
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        with Image.open(tmp_path / "out/panoptic" / entry["file_name"]) as png:
            assert png.size == (image["width"], image["height"])
            ids = np.asarray(png).astype(int) @ [1, 256, 65536]
        assert set(np.unique(ids)) - {0} == {s["id"] for s in entry["segments_info"]}
        assert (tmp_path / "out/pictures" / entry["file_name"]).is_file()
    found = json.loads((tmp_path / "out/instances.json").read_text())
    assert len(found) == 24
    assert {f["image_id"] for f in found} == {1, 2}
    written = tmp_path / "out/panoptic.json"
    quality = evaluate_files(written, tmp_path / "out/panoptic", written, tmp_path / "out/panoptic")
    assert quality["PQ"] == 100


def test_video_is_predicted_frame_by_frame(samples: Path, trained: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (128, 128))
    for path in sorted((samples / "images/val").iterdir())[:3]:
        writer.write(cv2.imread(str(path)))
    writer.release()
    predictor = PanopticPredictor(config(samples, *steps(2)), trained / "iter_2.pth")
    predictor.predict([tmp_path / "a.mp4"], tmp_path / "out", quiet=True)
    content = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert [image["frame"] for image in content["images"]] == [0, 1, 2]
    assert all("file_name" not in entry for entry in content["annotations"])
    assert (tmp_path / "out/pictures/a.mp4").is_file()


def test_model_of_other_classes_is_refused_before_training(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model.bbox_head.num_stuff_classes is 9, but the data have 4 stuff classes"
    ):
        runner.train(config(samples, *steps(2), "model.bbox_head.num_stuff_classes=9"), tmp_path)


@pytest.mark.parametrize("name", get_system("panoptic-segformer").configs)
def test_every_config_builds(name: str) -> None:
    cfg = load_config(name)
    assert cfg.task == "panoptic"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.bbox_head.num_classes == (7 if "samples" in name else 133)


def test_recipes_augmentation_keeps_masks_and_boxes_together(samples: Path) -> None:
    cfg = load_config("panoptic_segformer_r50_24e_coco")
    settings = {
        **cfg.train_dataloader.dataset,
        "data_root": str(samples),
        "ann_file": "annotations/panoptic_train.json",
        "data_prefix": {"img": "images/train", "seg": "annotations/panoptic_train"},
    }
    dataset = DATASETS.build(settings)
    for seed in range(4):  # both ways of resizing
        np.random.seed(seed)
        packed = dataset[0]
        height, width = packed["inputs"].shape[1:]
        assert 480 <= min(height, width) <= 800
        sample = packed["data_samples"]
        assert sample.gt_sem_seg.sem_seg.shape == (1, height, width)
        assert len(sample.gt_instances.masks) == len(sample.gt_instances.labels)
        assert sample.gt_instances.masks.masks.shape[1:] == (height, width)


def test_listed_configs_are_those_on_disk() -> None:
    listed = [name for name in get_task("panoptic").configs() if name.startswith("panoptic_segformer")]
    assert sorted(listed) == sorted(get_system("panoptic-segformer").configs)


def test_stock_mask2former_merges_mask_by_mask_and_predicts_in_cocos_format(tmp_path: Path) -> None:
    cfg = load_config("mask2former_r50_maskwise_coco", overrides=["model.backbone.init_cfg=None"])
    cfg.model.panoptic_head.pixel_decoder.encoder.num_layers = 1
    cfg.model.panoptic_head.transformer_decoder.num_layers = 1
    predictor = PanopticPredictor(cfg, None)
    assert isinstance(predictor.model.panoptic_fusion_head, MaskwiseFusionHead)
    Image.fromarray(np.full((37, 53, 3), 128, np.uint8)).save(tmp_path / "a.png")
    (record,) = predictor.predict([tmp_path / "a.png"], tmp_path / "out", quiet=True)
    assert (record["height"], record["width"]) == (37, 53)
    assert len(json.loads((tmp_path / "out/panoptic.json").read_text())["categories"]) == 133


def commonest_stuff(data: Path) -> float:
    """PQ in percent of the answer that is the training masks' commonest class everywhere."""
    masks = np.stack([np.asarray(Image.open(path)) for path in (data / "masks/train").iterdir()])
    common = int(np.bincount(masks[masks < len(CLASSES)]).argmax())
    counts = []
    answers = json.loads((data / "annotations/panoptic_val.json").read_text())["annotations"]
    for entry in answers:
        with Image.open(data / "annotations/panoptic_val" / entry["file_name"]) as png:
            ids = np.asarray(png).astype(np.int64) @ [1, 256, 65536]
        segments = [{"id": s["id"], "category": s["category_id"] - 1} for s in entry["segments_info"]]
        truth = SegmentMap.of_ids(ids, segments)
        predicted = SegmentMap.of_panoptic(np.full(ids.shape, common), len(CLASSES))
        counts.append(compare(predicted, truth, len(CLASSES)))
    return PQCounts.total(counts).summary(len(THINGS))["PQ"]


@pytest.mark.slow
def test_training_beats_the_commonest_class_by_far(tmp_path: Path) -> None:
    write(tmp_path / "data", train=100, val=16)
    baseline = commonest_stuff(tmp_path / "data")
    short = ("train_cfg.max_iters=30", "train_cfg.val_interval=30", "param_scheduler.1.end=30")
    trainer = runner.train(config(tmp_path / "data", *short), tmp_path / "work")
    reached = float(trainer.message_hub.get_scalar("val/panoptic/PQ").current())
    assert baseline < 6
    assert reached > 3 * baseline
