"""ECA in stock mmseg's ResNet by a line of the config."""

from pathlib import Path

from stock_data import write_cityscapes
from stock_runs import check, run, small_config


def test_stock_segmentor_trains_with_the_plugin(tmp_path: Path):
    data = write_cityscapes(tmp_path / "data")
    segmentor = "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024"
    one_line = [{"cfg": {"type": "opsin.ECA", "k_size": 3}, "position": "after_conv3"}]
    cfg = small_config(segmentor, data, tmp_path / "work", {"model.backbone.plugins": one_line})
    outcome = run(cfg)
    check(outcome)
    filters = [name for name in outcome.first.initial if ".eca." in name]
    assert len(filters) == 16
    assert all(not outcome.first.initial[name].equal(outcome.after_first[name]) for name in filters)
