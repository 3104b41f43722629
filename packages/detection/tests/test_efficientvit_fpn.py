"""The detectors whose backbones begin at stride 16: their necks add larger levels."""

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from stock_data import write_coco

from opsin.core.engine.config import load_config

SMALL = {
    "shvit_s4": {"depths": (1, 1, 1), "partial_dims": (4, 4, 4)},
    "efficientvit_m4": {"depths": (1, 1, 1), "num_heads": (2, 2, 2), "kernels": (3, 3)},
}
LEVELS = {"retinanet": [8, 16, 32, 64, 128], "mask_rcnn": [4, 8, 16, 32, 64]}


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("head", LEVELS)
def test_detector_trains_a_step_on_coco_with_levels_where_its_anchors_are(head, backbone, tmp_path):
    torch.manual_seed(0)
    cfg = load_config(f"{head}_{backbone}_coco", data=write_coco(tmp_path, CocoDataset.METAINFO["classes"]))
    cfg.model.backbone.arch = {"dims": (16, 16, 16), **SMALL[backbone]}
    cfg.model.neck.in_channels = [16, 16, 16]
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline[2].transforms[1].update(short=[96], longest=128)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).train()
    levels = model.extract_feat(torch.rand(1, 3, 128, 256))
    assert [(128 // m.shape[2], 256 // m.shape[3]) for m in levels] == [(s, s) for s in LEVELS[head]]
    anchors = (model.bbox_head if head == "retinanet" else model.rpn_head).prior_generator
    assert [stride for stride, _ in anchors.strides] == LEVELS[head]

    data = DATASETS.build(dataset)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    losses = model.train_step(
        pseudo_collate([data[0], data[1]]), build_optim_wrapper(model, cfg.optim_wrapper)
    )
    assert all(loss.isfinite().all() for loss in losses.values())
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert not {name for name in still if name.startswith(("neck.extra", "backbone.patch_embed"))}
