"""Gaussian adaptive attention in stock mmdet's ResNet by a line of the config."""

from pathlib import Path

from mmdet.datasets import CocoDataset
from stock_data import write_coco
from stock_runs import check, run, small_config


def test_stock_detector_trains_with_the_plugin(tmp_path: Path):
    data = write_coco(tmp_path / "data", CocoDataset.METAINFO["classes"])
    one_line = [{"cfg": {"type": "opsin.GaussianPlugin", "num_heads": 2}, "position": "after_conv3"}]
    changes = {
        "model.backbone.plugins": one_line,
        # the norm before the plugin begins at zero, and so do the plugin's gradients
        "model.backbone.zero_init_residual": False,
        "param_scheduler": [],
        "optim_wrapper.optimizer.lr": 0.1,
    }
    cfg = small_config("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco", data, tmp_path / "work", changes)
    outcome = run(cfg)
    check(outcome)
    densities = [name for name in outcome.first.initial if ".gaussian." in name]
    assert len(densities) == 16 * 2 * 2  # blocks, heads, offsets and widths
    moved = [n for n in densities if not outcome.first.initial[n].equal(outcome.after_first[n])]
    assert {name.split(".")[1] for name in moved} == {"layer2", "layer3", "layer4"}  # layer1 is frozen
