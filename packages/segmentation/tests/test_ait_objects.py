"""AiT on COCO's instance files: a step of either stage, COCO's metric, and predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as rle

from opsin.core.engine import runner
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.core.task import get_task
from opsin.segmentation.dense_prediction.datasets import CocoInstances
from opsin.segmentation.instances import coco_results, draw_instances
from opsin.segmentation.samples import THINGS

SIDE = 64
TINY: dict[str, Any] = {
    "backbone": {
        "arch": {"embed_dim": 8, "depths": (1, 1, 1), "num_heads": (1, 2, 4)},
        "window_size": (4, 4, 4),
        "pretrain_window_size": (4, 4, 4),
        "use_shift": (True, True, True),
        "out_indices": (2,),
    },
    "solver": {
        "d_model": 16,
        "nhead": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "dim_feedforward": 16,
        "num_bins": SIDE,
        "num_classes": len(THINGS),
        "dec_length": 200,
    },
}
OBJECTS: dict[str, Any] = {"count": 4, "extent": float(SIDE)}


def config(name: str, data: Path) -> Config:
    """A COCO recipe on the sample pictures, thin and two iterations long."""
    cfg = load_config(name, data=data)
    for loader in filter(None, (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)):
        split = "train" if loader is cfg.train_dataloader else "val"
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            ann_file=f"annotations/instances_{split}.json", data_prefix=dict(img=f"images/{split}")
        )
    for step in cfg.train_dataloader.dataset.pipeline + cfg.test_dataloader.dataset.pipeline:
        for key in ("scale", "crop_size"):
            if key in step:
                step[key] = (SIDE, SIDE)
    cfg.model.data_preprocessor.batch_augments[0].size = (SIDE, SIDE)
    for evaluator in filter(None, (cfg.val_evaluator, cfg.test_evaluator)):
        evaluator.ann_file = str(data / "annotations/instances_val.json")
    cfg.optim_wrapper.update(type="OptimWrapper")
    cfg.train_cfg.update(max_iters=2, val_interval=3)
    cfg.default_hooks.checkpoint.update(interval=2)
    for part, settings in TINY.items():
        if part in cfg.model:
            cfg.model[part].update(settings)
    for task in ("instances", "detection"):
        if task in cfg.model:
            cfg.model[task].update(OBJECTS)
    return cfg


def test_both_stages_test_and_prediction_on_instances(samples: Path, tmp_path: Path) -> None:
    runner.train(config("ait_tokenizer_masks_coco", samples), tmp_path / "tokenizer")
    cfg = config("ait_swinv2_base_instances_coco", samples)
    cfg.model.instances.checkpoint = str(tmp_path / "tokenizer/iter_2.pth")
    runner.train(cfg, tmp_path / "work")
    metrics = runner.test(cfg, tmp_path / "work/iter_2.pth")
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= metrics.keys()
    predictor = get_task("dense_prediction").load_predictor()(cfg, tmp_path / "work/iter_2.pth")
    assert predictor.classes == tuple(THINGS)
    predictor.predict([samples / "images/val/0000.jpg"], tmp_path / "out", quiet=True)
    (record,) = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert len(record["instances"]) == OBJECTS["count"]
    for found in record["instances"]:
        assert found["segmentation"]["size"] == [128, 128] and 1 <= found["category_id"] <= len(THINGS)
    assert np.asarray(Image.open(tmp_path / "out/pictures/0000.png")).shape[0] >= 128


def test_detection_trains_and_tests(samples: Path, tmp_path: Path) -> None:
    cfg = config("ait_swinv2_base_detection_coco", samples)
    runner.train(cfg, tmp_path)
    assert "coco/bbox_mAP" in runner.test(cfg, tmp_path / "iter_2.pth")
    cfg.model.solver.num_classes = 2
    with pytest.raises(UserError, match=r"have class 2 and the vocabulary words for 2 classes"):
        runner.train(cfg, tmp_path / "few")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no annotations at"),
        ("{", "is not json"),
        ("{}", "it lacks images, annotations, categories"),
        ('{"images": [], "annotations": [], "categories": []}', "no folder of pictures at"),
    ],
)
def test_wrong_instance_files_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message):
        CocoInstances(ann_file=str(tmp_path / "a.json"), data_prefix={"img": str(tmp_path / "none")})


@pytest.fixture
def found() -> InstanceData:
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 1:3, 2:6], masks[1, 2:8, 0:9] = True, True
    return InstanceData(
        bboxes=torch.tensor([[2.0, 1, 6, 3], [0, 2, 9, 8]]),
        scores=torch.tensor([0.9, 0.6]),
        labels=torch.tensor([1, 0]),
        masks=masks,
    )


def test_results_are_those_of_coco(found: InstanceData) -> None:
    first, second = coco_results(found, [7, 9])
    assert (first["category_id"], first["bbox"]) == (9, [2, 1, 4, 2])
    assert second["score"] == pytest.approx(0.6)
    assert np.array_equal(rle.decode(first["segmentation"]), found.masks[0].numpy())
    boxes = InstanceData(bboxes=found.bboxes, scores=found.scores, labels=found.labels)
    assert "segmentation" not in next(coco_results(boxes, [7, 9]))
    assert list(coco_results(boxes[:0], [7, 9])) == []


def test_the_best_object_is_drawn_on_top(found: InstanceData) -> None:
    image = np.full((8, 10, 3), 100, np.uint8)
    palette = [(200, 0, 0), (0, 200, 0)]
    drawn = draw_instances(image, found, ["a", "b"], palette)
    assert drawn[1, 3, 1] > drawn[1, 3, 0] and drawn[5, 4, 0] > drawn[5, 4, 1]
    assert (drawn[0, 8] == 100).all()
    surest = draw_instances(image, found, ["a", "b"], palette, least=0.8)
    assert (surest[5, 4] == 100).all()
    boxes = InstanceData(bboxes=found.bboxes, scores=found.scores, labels=found.labels)
    outlined = draw_instances(np.full((40, 40, 3), 100, np.uint8), boxes[1:], ["a", "b"], palette)
    assert (outlined[20, 20] == 100).all()
