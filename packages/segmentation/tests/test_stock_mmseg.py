"""Stock mmsegmentation configs run on mmcv-lite: train, predict, save, resume, train."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stock_data import HEIGHT, WIDTH, write_ade20k, write_cityscapes
from stock_runs import check, run, small_config

CONFIGS = {
    "upernet": ("upernet/upernet_r50_4xb2-40k_cityscapes-512x1024", write_cityscapes, 19),
    "deeplabv3plus": (
        "deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024",
        write_cityscapes,
        19,
    ),
    "segformer": ("segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512", write_ade20k, 150),
}


@pytest.mark.parametrize(("config", "write", "classes"), CONFIGS.values(), ids=CONFIGS)
def test_stock_config_trains_predicts_and_resumes(
    config: str, write: Callable[[Path], Path], classes: int, tmp_path: Path
) -> None:
    cfg = small_config(f"mmseg::{config}", write(tmp_path / "data"), tmp_path / "work", {})
    outcome = run(cfg)
    check(outcome)
    assert "decode.loss_ce" in outcome.first.losses[0]
    assert len(outcome.first.predictions) == 2
    for sample in outcome.first.predictions:
        labels = sample.pred_sem_seg.data
        assert labels.shape == (1, HEIGHT, WIDTH) and labels.dtype == torch.int64
        assert labels.min() >= 0 and labels.max() < classes
        assert sample.seg_logits.data.shape == (classes, HEIGHT, WIDTH)
    assert 0 <= outcome.metrics["mIoU"] <= 100
