"""RelationNet++ as an option of stock detectors, and learning the sample data."""

import json
from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.registry import MODELS, init_default_scope
from stock_data import write_coco
from stock_runs import check, run, small_config

from opsin.core.data.image import list_images, read_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.detection.predictor import DetectionPredictor

pytestmark = pytest.mark.xdist_group("relationnet2_training")  # the training that they share is done once

STOCK = {
    "retinanet": "mmdet::retinanet/retinanet_r50_fpn_1x_coco",
    "fcos": "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "atss": "mmdet::atss/atss_r50_fpn_1x_coco",
    "faster_rcnn": "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_detector_takes_the_relation_by_config_alone(name: str, tmp_path: Path):
    data = write_coco(tmp_path / "data", CocoDataset.METAINFO["classes"])
    cfg = small_config(STOCK[name], data, tmp_path / "work", {"param_scheduler": []})
    points = {"num_classes": 80, "in_channels": 64, "feat_channels": 16, "stacked_convs": 1}
    relation = {"base_size": (20, 20)}
    if name == "faster_rcnn":
        cfg.model.roi_head.update(
            type="opsin.BVRRoIHead", keypoint_head={**points, "strides": [8, 16, 32, 64]}, relation=relation
        )
    else:
        stock = cfg.model.bbox_head
        cfg.model.bbox_head = {
            "type": "opsin.BVRHead",
            "bbox_head": stock,
            "keypoint_head": {**points, "strides": [8, 16, 32, 64, 128]},
            "relation": relation,
        }
    outcome = run(cfg)
    check(outcome)
    assert {"kpt_loss_heatmap", "kpt_loss_offset"} <= outcome.first.losses[0].keys()
    moved = [n for n in outcome.after_first if not outcome.first.initial[n].equal(outcome.after_first[n])]
    assert any("out_proj.weight" in n for n in moved)
    assert any("keypoint_cls_heads" in n for n in moved)


def config(samples, one_class, epochs):
    return load_config(
        "retinanet_bvr_samples",
        data=samples,
        overrides=[
            "model.bbox_head.bbox_head.num_classes=1",
            "model.bbox_head.keypoint_head.num_classes=1",
            "train_dataloader.num_workers=0",
            "train_dataloader.persistent_workers=False",
            "train_dataloader.dataset.indices=48",
            f"train_dataloader.dataset.ann_file={one_class['train']}",
            f"val_dataloader.dataset.ann_file={one_class['val']}",
            "val_dataloader.dataset.indices=4",
            f"test_dataloader.dataset.ann_file={one_class['val']}",
            "test_dataloader.dataset.indices=16",
            "optim_wrapper.optimizer.lr=2e-3",
            "param_scheduler.0.end=12",
            f"train_cfg.max_epochs={epochs}",
            "train_cfg.val_interval=100",
            "param_scheduler.1.T_max=7",
        ],
    )


@pytest.fixture(scope="module")
def trained(samples, one_class, tmp_path_factory):
    """A run of six epochs, resumed for a seventh: its last runner and its folder."""
    work_dir = tmp_path_factory.mktemp("bvr")
    train(config(samples, one_class, 6), work_dir)
    return train(config(samples, one_class, 7), work_dir, resume=True), work_dir


def test_training_goes_on_where_it_stopped(trained):
    runner, _ = trained
    assert (runner.epoch, runner.iter) == (7, 84)


def test_detector_finds_digits_on_pictures_it_has_not_seen(trained, samples, one_class, tmp_path):
    cfg = config(samples, one_class, 7)
    init_default_scope(cfg.default_scope)
    torch.save({"meta": {}, "state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "untrained.pth")
    before = evaluate(cfg, tmp_path / "untrained.pth")["coco/bbox_mAP_50"]
    after = evaluate(cfg, trained[1] / "epoch_7.pth")["coco/bbox_mAP_50"]
    assert before < 0.05
    assert after > 0.2


def test_predictions_and_pictures_are_written(trained, samples, one_class, tmp_path):
    predictor = DetectionPredictor(config(samples, one_class, 7), trained[1] / "epoch_7.pth")
    inputs = list_images(samples / "images" / "val")[:2]
    predictor.predict(inputs, tmp_path, quiet=True)
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert {f["image_id"] for f in found} == {1, 2}
    assert read_image(tmp_path / "pictures" / f"{inputs[0].stem}.png").ndim == 3


def test_class_counts_of_both_heads_are_checked(samples, one_class, tmp_path):
    cfg = config(samples, one_class, 1)
    cfg.model.bbox_head.keypoint_head.num_classes = 4
    with pytest.raises(UserError, match=r"keypoint_head has num_classes=4, but the data have 1 class"):
        train(cfg, tmp_path)
