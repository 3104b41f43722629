import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train

CROP = 112  # pixels; half of the config's area, and enough to learn from


@pytest.mark.slow
def test_detector_learns_to_find_digits_on_pictures_it_has_not_seen(samples, one_class, tmp_path):
    cfg = load_config(
        "retinanet_convnext_samples",
        data=samples,
        overrides=[
            "model.bbox_head.num_classes=1",
            "train_dataloader.num_workers=0",
            "train_dataloader.persistent_workers=False",
            "train_dataloader.dataset.indices=64",
            f"train_dataloader.dataset.ann_file={one_class['train']}",
            f"val_dataloader.dataset.ann_file={one_class['val']}",
            f"test_dataloader.dataset.ann_file={one_class['val']}",
            "test_dataloader.dataset.indices=20",
            "optim_wrapper.optimizer.lr=2e-3",
            "param_scheduler.0.end=20",
            "train_cfg.max_epochs=7",
            "train_cfg.val_interval=100",
            "param_scheduler.1.T_max=7",
        ],
    )
    for step in cfg.train_dataloader.dataset.pipeline[2].transforms[1:3]:  # padding and cropping
        step.update({side: CROP for side in step if side.endswith(("height", "width"))})
    init_default_scope(cfg.default_scope)
    torch.save({"meta": {}, "state_dict": MODELS.build(cfg.model).state_dict()}, tmp_path / "untrained.pth")
    before = evaluate(cfg, tmp_path / "untrained.pth")["coco/bbox_mAP_50"]
    train(cfg, tmp_path / "run")
    after = evaluate(cfg, tmp_path / "run" / "epoch_7.pth")["coco/bbox_mAP_50"]
    assert before < 0.05
    assert after > 0.3
