"""Stock mmseg's UPerNet on opsin's backbones: only the backbone and the widths that its heads read change."""

from pathlib import Path

import pytest
from backbone_matrix import widths
from small_backbones import BACKBONES, small_backbone
from stock_data import write_cityscapes
from stock_runs import check, run, small_config


@pytest.mark.parametrize("backbone", ["convnext", "vim"])
def test_stock_upernet_trains_on_an_opsin_backbone(backbone: str, tmp_path: Path) -> None:
    data = write_cityscapes(tmp_path / "data")
    cfg = small_config("mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024", data, tmp_path / "work", {})
    cfg.model.backbone = BACKBONES[backbone]
    cfg.model.decode_head.in_channels = widths(small_backbone(backbone).feature_info)
    cfg.model.auxiliary_head.in_channels = widths(small_backbone(backbone).feature_info)[2]
    outcome = run(cfg)
    check(outcome)
    assert 0 <= outcome.metrics["mIoU"] <= 100
    changed = [
        name
        for name, before in outcome.first.initial.items()
        if name.startswith("backbone.") and not before.equal(outcome.after_first[name])
    ]
    assert changed
