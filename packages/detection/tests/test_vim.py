"""Vim's detector, a plain backbone with a simple feature pyramid, on the sample data."""

import json

import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import set_random_seed

from opsin.core.data.image import list_images, read_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.detection.predictor import DetectionPredictor

SHORT = (
    "train_dataloader.dataset.indices=4",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "val_dataloader.dataset.indices=2",
    "test_dataloader.dataset.indices=2",
    "train_cfg.max_epochs=1",
    "train_cfg.val_interval=2",
    "model.test_cfg.rcnn.score_thr=0.0",
)


@pytest.fixture(autouse=True)
def _seeded():
    set_random_seed(0)


def build(cfg):
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def test_pyramid_has_strides_4_to_64_where_the_anchors_are():
    cfg = load_config("mask_rcnn_vim_samples")
    model = build(cfg)
    with torch.no_grad():
        levels = model.extract_feat(torch.rand(1, 3, 160, 224))
    assert [tuple(m.shape[1:]) for m in levels] == [
        (64, 40, 56), (64, 20, 28), (64, 10, 14), (64, 5, 7), (64, 3, 4)
    ]  # fmt: skip
    assert [stride for stride, _ in model.rpn_head.prior_generator.strides] == [4, 8, 16, 32, 64]


def test_loss_falls_on_a_fixed_batch(samples):
    cfg = load_config("mask_rcnn_vim_samples", data=samples)
    model = build(cfg).train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([dataset[i] for i in range(4)])
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = torch.stack([model.train_step(batch, optimizer)["loss"].detach() for _ in range(25)])
    assert losses.isfinite().all()
    assert losses[-5:].mean() < 0.6 * losses[:5].mean()


def test_published_recipe_jitters_the_scale_within_squares_of_1024(samples):
    cfg = load_config("cascade_mask_rcnn_vim_tiny_coco")
    init_default_scope(cfg.default_scope)
    transforms = Compose(cfg.train_pipeline)
    source = load_config("mask_rcnn_vim_samples", data=samples).val_dataloader.dataset
    dataset = DATASETS.build({**source, "pipeline": []})
    packed = [transforms(dataset.get_data_info(i)) for i in range(4)]
    assert {tuple(p["inputs"].shape) for p in packed} == {(3, 1024, 1024)}
    padded = {int((p["inputs"] == 128).all(0).sum()) for p in packed}
    assert len(padded) > 1


def test_published_recipe_trains_in_bfloat16_and_decays_rates_by_layer(samples):
    cfg = load_config("cascade_mask_rcnn_vim_tiny_coco")
    cfg.model.backbone.update(arch=dict(embed_dim=32, depth=2), out_indices=(1,))
    cfg.model.neck.in_channels = 32
    cfg.model.data_preprocessor.pad_size_divisor = 32
    cfg.model.roi_head.mask_head.num_classes = 10
    for head in cfg.model.roi_head.bbox_head:
        head.num_classes = 10
    for stage in cfg.model.train_cfg.rcnn:
        stage.sampler.num = 8
    model = build(cfg).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    scales = {round(group["lr"] / 1e-4, 6) for group in optimizer.param_groups}
    assert scales == {round(0.837**k, 6) for k in range(4)}
    dataset = DATASETS.build(load_config("mask_rcnn_vim_samples", data=samples).train_dataloader.dataset)
    losses = model.train_step(pseudo_collate([dataset[0]]), optimizer)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_run_is_evaluated_and_predicts(samples, tmp_path):
    cfg = load_config("mask_rcnn_vim_samples", data=samples, overrides=SHORT)
    train(cfg, tmp_path / "run")
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    metrics = evaluate(cfg, checkpoint)
    assert all(0 <= metrics[f"coco/{kind}_mAP"] <= 1 for kind in ("bbox", "segm"))

    image = list_images(samples / "images" / "val")[0]
    DetectionPredictor(cfg, checkpoint).predict([image], tmp_path / "out", quiet=True)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert found
    assert all("segmentation" in f and 0 <= f["score"] <= 1 and len(f["bbox"]) == 4 for f in found)
    picture = read_image(tmp_path / "out" / "pictures" / f"{image.stem}.png")
    assert picture.shape[0] % read_image(image).shape[0] == 0
