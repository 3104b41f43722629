"""Stock mmdet detectors on opsin's backbones: only the backbone and the neck's widths change."""

from pathlib import Path

import pytest
from backbone_matrix import widths
from mmdet.datasets import CocoDataset
from small_backbones import BACKBONES, small_backbone
from stock_data import write_coco
from stock_runs import check, run, small_config

RETINANET, MASK_RCNN = "retinanet/retinanet_r50_fpn_1x_coco", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco"


@pytest.mark.parametrize(
    ("backbone", "detector"),
    [("convnext", RETINANET), ("vim", MASK_RCNN), ("agent_attention", MASK_RCNN)],
    ids=["convnext-retinanet", "vim-mask_rcnn", "agent_attention-mask_rcnn"],
)
def test_stock_detector_trains_on_an_opsin_backbone(detector: str, backbone: str, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data", CocoDataset.METAINFO["classes"])
    cfg = small_config(f"mmdet::{detector}", data, tmp_path / "work", {})
    cfg.model.backbone = BACKBONES[backbone]
    cfg.model.neck.in_channels = widths(small_backbone(backbone).feature_info)
    outcome = run(cfg)
    check(outcome)
    moved = {
        name.split(".")[1]
        for name, before in outcome.first.initial.items()
        if name.startswith("backbone.") and not before.equal(outcome.after_first[name])
    }
    assert {"convnext": "stages", "vim": "layers", "agent_attention": "block1"}[backbone] in moved
