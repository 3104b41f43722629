import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from opsin.core.engine.config import load_config
from opsin.core.task import get_task

COUNTS = {
    "mask_rcnn_convnext_tiny_coco": 48_095_376,
    "cascade_mask_rcnn_convnext_tiny_coco": 85_930_578,
    "cascade_mask_rcnn_convnext_small_coco": 107_565_138,
}


def build(name):
    cfg = load_config(name)
    init_default_scope(cfg.default_scope)
    with torch.device("meta"):
        return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize("name", get_task("detection").configs())
def test_every_config_builds_and_its_neck_fits_its_backbone(name):
    cfg, model = build(name)
    maps = model.backbone(torch.zeros(1, 3, 64, 64, device="meta"))
    assert {level.shape[1] for level in model.neck(maps)} == {cfg.model.neck.out_channels}


@pytest.mark.parametrize("name", COUNTS)
def test_published_detectors_have_the_published_size(name):
    model = build(name)[1]
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_recipe_decays_the_learning_rate_from_the_head_to_the_stem():
    cfg, model = build("cascade_mask_rcnn_convnext_base_coco")
    from mmengine.optim import build_optim_wrapper

    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    scales = sorted({round(g["lr"] / 2e-4, 6) for g in groups})
    assert scales[-1] == 1
    assert scales[0] == pytest.approx(0.8**13, abs=1e-6)
