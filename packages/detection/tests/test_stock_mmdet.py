"""Stock mmdet configs run on mmcv-lite: train, predict, save, resume, train."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from stock_data import HEIGHT, WIDTH, write_coco
from stock_runs import Outcome, check, run, small_config

TWO_STAGE = {"model.train_cfg.rpn_proposal.max_per_img": 50, "model.test_cfg.rpn.max_per_img": 20}
ONE_LAYER_EACH = {"model.encoder.num_layers": 1, "model.decoder.num_layers": 2}
MASK2FORMER = {
    "model.panoptic_head.pixel_decoder.encoder.num_layers": 1,
    "model.panoptic_head.transformer_decoder.num_layers": 2,
    "model.train_cfg.num_points": 256,
}
NARROW_HEAD = {"model.roi_head.bbox_head.fc_out_channels": 32, **TWO_STAGE}

BOXES = {
    "retinanet": ("retinanet/retinanet_r50_fpn_1x_coco", {}),
    "faster-rcnn": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco", NARROW_HEAD),
    "cascade-rcnn": ("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco", TWO_STAGE),
    "fcos": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco", {}),
    "atss": ("atss/atss_r50_fpn_1x_coco", {}),
    "detr": ("detr/detr_r50_8xb2-150e_coco", ONE_LAYER_EACH),
    "deformable-detr": ("deformable_detr/deformable-detr_r50_16xb2-50e_coco", ONE_LAYER_EACH),
    "dino": ("dino/dino-4scale_r50_8xb2-12e_coco", ONE_LAYER_EACH),
    # a random network gives boxes without area, which are kept then
    "rtmdet": ("rtmdet/rtmdet_tiny_8xb32-300e_coco", {"model.test_cfg.min_bbox_size": -1}),
}
MASKS = {
    "mask-rcnn": ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco", NARROW_HEAD),
    "mask2former": ("mask2former/mask2former_r50_8xb2-lsj-50e_coco", MASK2FORMER),
}


def run_stock(config: str, changes: dict[str, Any], folder: Path) -> Outcome:
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    things = CocoDataset.METAINFO["classes"]
    stuff = CocoPanopticDataset.METAINFO["stuff_classes"] if "panoptic" in config else ()
    data = write_coco(folder / "data", things, stuff)
    outcome = run(small_config(f"mmdet::{config}", data, folder / "work", changes))
    check(outcome)
    assert len(outcome.first.predictions) == 2
    return outcome


def check_boxes(found: Any) -> None:
    assert len(found) > 0
    assert found.bboxes.shape == (len(found), 4) and found.scores.shape == found.labels.shape == (len(found),)
    assert torch.isfinite(found.bboxes).all() and torch.isfinite(found.scores).all()
    assert found.labels.min() >= 0 and found.labels.max() < 80
    # RTMDet pads pictures to squares before it clips
    assert (found.bboxes >= -1e-3).all() and (found.bboxes <= max(WIDTH, HEIGHT) + 1e-3).all()


@pytest.mark.parametrize(("config", "changes"), BOXES.values(), ids=BOXES)
def test_stock_detector_trains_predicts_and_resumes(
    config: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    outcome = run_stock(config, changes, tmp_path)
    for sample in outcome.first.predictions:
        check_boxes(sample.pred_instances)
    assert math.isfinite(outcome.metrics["coco/bbox_mAP"])


@pytest.mark.parametrize(("config", "changes"), MASKS.values(), ids=MASKS)
def test_stock_instance_segmenter_trains_predicts_and_resumes(
    config: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    outcome = run_stock(config, changes, tmp_path)
    for sample in outcome.first.predictions:
        check_boxes(sample.pred_instances)
        assert sample.pred_instances.masks.shape == (len(sample.pred_instances), HEIGHT, WIDTH)
        assert sample.pred_instances.masks.dtype == torch.bool
    assert math.isfinite(outcome.metrics["coco/segm_mAP"])


def test_stock_panoptic_segmenter_trains_predicts_and_resumes(tmp_path: Path) -> None:
    outcome = run_stock("mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic", MASK2FORMER, tmp_path)
    for sample in outcome.first.predictions:
        panoptic = sample.pred_panoptic_seg.sem_seg
        assert panoptic.shape == (1, HEIGHT, WIDTH)
        # class + 1000 · instance; class 133 is no segment
        assert (panoptic % 1000).min() >= 0 and (panoptic % 1000).max() <= 133
    assert math.isfinite(outcome.metrics["coco_panoptic/PQ"])


def test_stock_detector_trains_in_bfloat16_on_a_cpu(tmp_path: Path) -> None:
    bfloat16 = {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "bfloat16"}
    config, changes = MASKS["mask-rcnn"]
    outcome = run_stock(config, {**changes, **bfloat16}, tmp_path)
    for sample in outcome.first.predictions:
        check_boxes(sample.pred_instances)


def test_a_config_inherits_from_the_wheel(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\nmodel = dict(backbone=dict(depth=18))\n"
    )
    backbone = Config.fromfile(path).model.backbone
    assert backbone.type == "ResNet" and backbone.depth == 18
