"""The way of the task: panoptic files to a trained model, tests on other classes, predictions by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from PIL import Image
from stock_data import write_ade20k

from opsin.core.engine import runner
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.segmentation.open_vocabulary.datasets import ReadSamMasks
from opsin.segmentation.open_vocabulary.metrics import SemanticIoU
from opsin.segmentation.open_vocabulary.predictor import OpenVocabularyPredictor
from opsin.segmentation.samples import CLASSES, write

pytestmark = pytest.mark.xdist_group("open_vocabulary")  # the training that they share is done once

LOADERS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]
STEPS = 40


def config(data: Path, *overrides: str, steps: int = STEPS) -> Config:
    schedule = [
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={STEPS}",
        f"default_hooks.checkpoint.interval={STEPS // 2}",
        f"param_scheduler.1.end={STEPS}",
        "train_dataloader.batch_size=4",
    ]
    return load_config("frozenseg_tiny_samples", data=data, overrides=[*LOADERS, *schedule, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open_vocabulary")
    write(folder, train=40, val=6)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint after half of the training and a resumed second half, and the last runner."""
    work = tmp_path_factory.mktemp("work")
    runner.train(config(data, steps=STEPS // 2), work)
    return work / f"iter_{STEPS}.pth", runner.train(config(data), work, resume=True)


def majority_baseline(data: Path) -> float:
    """mIoU in percent of the answer that is the training masks' most frequent class everywhere."""
    train = np.stack([np.asarray(Image.open(path)) for path in (data / "masks/train").iterdir()])
    most = int(np.bincount(train[train < len(CLASSES)]).argmax())
    val = np.stack([np.asarray(Image.open(path)) for path in (data / "masks/val").iterdir()])
    return 100 * float((val == most).sum() / (val < len(CLASSES)).sum()) / len(CLASSES)


def test_a_short_training_beats_the_most_frequent_class(data: Path, trained: tuple[Path, Any]) -> None:
    reached = float(trained[1].message_hub.get_scalar("val/semantic/mIoU").current())
    assert reached > 2 * majority_baseline(data)
    assert trained[1].model.trained == [(name,) for name in CLASSES]


def test_a_test_names_the_datas_classes(data: Path, trained: tuple[Path, Any]) -> None:
    metrics = runner.test(config(data), trained[0])
    again = trained[1].message_hub.get_scalar("val/semantic/mIoU").current()
    assert metrics["semantic/mIoU"] == pytest.approx(again, abs=1e-3)
    assert 0 < metrics["panoptic/PQ"] < 100


def test_data_with_other_classes_can_be_tested(data: Path, trained: tuple[Path, Any], tmp_path: Path) -> None:
    path = data / "annotations/panoptic_val.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 99, "name": "zebra", "isthing": 1, "supercategory": "animal"})
    renamed = data / "annotations/panoptic_more.json"
    renamed.write_text(json.dumps(content))
    more = "test_dataloader.dataset.ann_file=annotations/panoptic_more.json"
    metrics = runner.test(config(data, more), trained[0], work_dir=tmp_path)
    assert 0 < metrics["semantic/mIoU"] < 100
    with pytest.raises(UserError, match=r"model.classes names 2 classes and the data have 8"):
        runner.test(config(data, more, "model.classes=[cat,dog]"), trained[0], work_dir=tmp_path)


def test_semantic_masks_of_ade20k_can_be_tested(
    data: Path, trained: tuple[Path, Any], tmp_path: Path
) -> None:
    write_ade20k(tmp_path / "ade")
    loaders = [override for override in LOADERS if not override.startswith("train")]
    cfg = load_config("frozenseg_convnext_large_ade20k_semantic", data=tmp_path / "ade", overrides=loaders)
    cfg.model = config(data).model
    cfg.test_dataloader.dataset.pipeline[1].transforms[0].short = [64]
    metrics = runner.test(cfg, trained[0], work_dir=tmp_path / "work")
    assert 0 <= metrics["mIoU"] < 100
    model = build_model(cfg)
    model.set_classes([("a",)])
    with pytest.raises(UserError, match=r"a sample has no instances; use data in COCO's panoptic format"):
        model.loss(torch.zeros(1, 3, 64, 64), [SegDataSample()])


def test_prediction_looks_for_the_names_that_are_given(
    data: Path, trained: tuple[Path, Any], tmp_path: Path
) -> None:
    Image.fromarray(np.full((37, 53), 128, np.uint8)).save(tmp_path / "grey.png")
    inputs = [data / "images/val/0000.jpg", tmp_path / "grey.png"]
    cfg = config(data, "model.classes=[(grass,lawn),wall,zero]", "model.stuff=[grass,wall]")
    predictor = OpenVocabularyPredictor(cfg, trained[0])
    assert predictor.model.trained == [(name,) for name in CLASSES]
    predictor.predict(inputs, tmp_path / "out", quiet=True)
    written = json.loads((tmp_path / "out/panoptic.json").read_text())
    named = [(c["id"], c["name"], c["isthing"]) for c in written["categories"]]
    assert named == [(1, "grass", 0), (2, "wall", 0), (3, "zero", 1)]
    assert written["annotations"][0]["segments_info"]
    for annotation, size in zip(written["annotations"], ((128, 128), (37, 53)), strict=True):
        png = np.asarray(Image.open(tmp_path / "out/panoptic" / annotation["file_name"]), np.int64)
        ids = png @ np.array([1, 256, 65536])
        assert ids.shape == size
        areas = {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
        assert areas == {i: int((ids == i).sum()) for i in np.unique(ids).tolist() if i}
    assert (tmp_path / "out/pictures/0000.png").is_file()


def test_prediction_without_names_looks_for_the_trainings_classes(
    data: Path, trained: tuple[Path, Any]
) -> None:
    predictor = OpenVocabularyPredictor(config(data), trained[0])
    assert predictor.classes == CLASSES
    assert [c["isthing"] for c in predictor._categories()] == [1, 1, 1, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"not told what to look for"):
        OpenVocabularyPredictor(config(data), None)


def test_sams_own_masks_count_for_new_classes(data: Path, tmp_path: Path) -> None:
    picture = data / "images/val/0001.jpg"
    logits = np.full((3, 128, 128), -5, np.float32)
    logits[0, :4], logits[1, :64], logits[2, 64:] = 5, 5, 5
    np.savez(tmp_path / "0001.npz", logits=logits)
    loaded = ReadSamMasks(str(tmp_path), most=2).transform({"img_path": str(picture)})["sam_masks"]
    assert np.array_equal(loaded, logits[1:])  # the largest
    assert "sam_masks" not in ReadSamMasks(str(tmp_path)).transform({"img_path": "none.jpg"})
    cfg = config(data, "model.classes=[unheard,unseen]", "model.sam_mask_weight=1.0")
    cfg.predict_pipeline = [
        dict(type="opsin.LoadImage"),
        dict(type="opsin.ReadSamMasks", folder=str(tmp_path)),
        dict(type="opsin.PackOpenVocabulary"),
    ]
    predictor = OpenVocabularyPredictor(cfg, None)
    with_masks = predictor.infer(predictor.read(picture), picture).pred_sem_seg.data
    without = predictor.infer(predictor.read(picture), Path("none.jpg")).pred_sem_seg.data
    assert with_masks.shape == without.shape == (1, 128, 128)
    batch = predictor.batch(predictor.read(picture), picture)
    assert batch["data_samples"][0].sam_masks.shape == (3, 128, 128)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no folder of SAM's masks"),
        ({"x": np.zeros(3)}, "no array 'logits'"),
        ({"logits": np.zeros(3)}, r"logits are \[3\]"),
    ],
)
def test_wrong_sam_masks_are_named(tmp_path: Path, content: dict[str, Any] | None, message: str) -> None:
    folder = tmp_path / "masks"
    if content is not None:
        folder.mkdir()
        np.savez(folder / "a.npz", **content)
    with pytest.raises(UserError, match=message):
        ReadSamMasks(str(folder)).transform({"img_path": "a.jpg"})


def test_semantic_iou_counts_pixels_with_a_class(tmp_path: Path) -> None:
    ids = np.array([[1, 1, 2, 0]], np.uint8)
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(tmp_path / "t.png")
    metric = SemanticIoU()
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    sample = {
        "seg_map_path": str(tmp_path / "t.png"),
        "segments_info": [{"id": 1, "category": 0}, {"id": 2, "category": 1}],
        "pred_sem_seg": {"data": torch.tensor([[[0, 1, 1, 2]]])},
    }
    metric.process(None, [sample])
    values = metric.compute_metrics(metric.results)
    # a: 1 of 2; b: 1 of 2; c is nowhere in what counts
    assert values["mIoU"] == pytest.approx(50.0)
    sample["pred_sem_seg"] = {"data": torch.zeros(1, 2, 4, dtype=torch.long)}
    with pytest.raises(UserError, match=r"differ in size: 4x2 and 4x1"):
        metric.process(None, [sample])


@pytest.mark.parametrize("name", get_system("frozenseg").configs)
def test_every_config_builds(name: str) -> None:
    cfg = load_config(name)
    assert cfg.task == "open_vocabulary"
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.backbone.embed_dim == model.void_embedding.weight.shape[1]


def test_listed_configs_are_those_on_disk() -> None:
    assert sorted(get_task("open_vocabulary").configs()) == sorted(get_system("frozenseg").configs)
