"""Panoptic SegFormer for maps of classes: objects from index masks, and a class for every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from opsin.core.engine.config import load_config
from opsin.registry import MODELS
from opsin.segmentation.panoptic.datasets import PackPanoptic, RegionsAsObjects
from opsin.segmentation.panoptic.models.panoptic_segformer.inference import Inference, Raw

META = {"img_shape": (4, 4), "ori_shape": (4, 4), "scale_factor": (1.0, 1.0)}


def test_connected_regions_of_thing_classes_become_objects() -> None:
    semantic = np.full((20, 20), 2, np.uint8)
    semantic[:4, :4] = semantic[4:8, 4:8] = 0  # they touch at a corner
    semantic[10:18, 2:8] = 1
    semantic[10:12, 15:18] = 1  # smaller than what counts
    semantic[19] = 255
    found = RegionsAsObjects(things=2, min_area=16).transform({"gt_seg_map": semantic})
    assert found["gt_bboxes_labels"].tolist() == [0, 1]
    assert found["gt_bboxes"].tolist() == [[0, 0, 8, 8], [2, 10, 8, 18]]
    assert found["gt_masks"].sum((1, 2)).tolist() == [32, 48]
    assert not RegionsAsObjects(things=0).transform({"gt_seg_map": semantic})["gt_masks"].size


def test_pixel_has_the_class_of_the_highest_score_times_mask() -> None:
    thing_masks = torch.zeros(3, 4, 4)
    thing_masks[0, :2] = 5.0  # cut at 1
    thing_masks[1, :2], thing_masks[2, :2] = 0.9, 0.9  # two weak ones of a class don't add up
    stuff_masks = torch.full((2, 4, 4), 0.3)
    stuff_masks[1, 3] = 1.0
    raw = Raw(
        scores=torch.tensor([0.8, 0.5, 0.5]),
        labels=torch.tensor([1, 0, 0]),
        boxes=torch.zeros(3, 4),
        thing_masks=thing_masks,
        stuff_scores=torch.tensor([0.9, 0.7]),
        stuff_masks=stuff_masks,
    )
    found = Inference(num_things=2, semantic=True).results(raw, META)
    assert list(found) == ["pred_sem_seg"]
    assert found["pred_sem_seg"].data[0, :, 0].tolist() == [1, 1, 2, 3]


@pytest.mark.parametrize(
    "name", ["panoptic_segformer_convnext_camvid", "panoptic_segformer_convnext_membrane"]
)
def test_network_with_and_without_things_learns_and_labels_every_pixel(name: str) -> None:
    cfg = load_config(name)
    cfg.model.backbone.arch = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    things, classes = model.bbox_head.num_things_classes, model.bbox_head.num_classes
    semantic = np.arange(64, dtype=np.uint8)[:, None].repeat(64, 1) * classes // 64
    results: dict[str, Any] = {"img": np.zeros((64, 64, 3), np.uint8), "gt_seg_map": semantic}
    results |= {"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0)}
    packed = PackPanoptic().transform(RegionsAsObjects(things).transform(results))
    batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
    losses = model.train()(**model.data_preprocessor(batch, True), mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert model.bbox_head.stuff_query.weight.grad.abs().sum() > 0
    [found] = model.eval().test_step(batch)
    assert found.pred_sem_seg.data.shape == (1, 64, 64) and "pred_panoptic_seg" not in found
    assert found.pred_sem_seg.data.max() < classes
