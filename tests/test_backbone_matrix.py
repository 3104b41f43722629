"""Every backbone in every kind of dense network of stock mmdet and mmsegmentation."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from backbone_matrix import HEADS, batch, dense_model, losses_of, predict, total
from small_backbones import BACKBONES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_trains_and_predicts_in_a_stock_network(backbone: str, head: str) -> None:
    model, data = dense_model(head, backbone), batch(head)
    loss = total(losses_of(model.train(), data))
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in model.backbone.parameters() if p.requires_grad]
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    first = next(gradient for gradient in gradients if gradient is not None)
    assert first.abs().sum() > 0  # of the stem: residual branches that begin at zero get none yet
    found = predict(model, data)
    assert len(found) == len(data["inputs"])
    for sample, picture in zip(found, data["inputs"], strict=True):
        if "pred_sem_seg" in sample:
            assert sample.pred_sem_seg.data.shape[-2:] == picture.shape[-2:]
        else:
            assert sample.pred_instances.bboxes.isfinite().all()


def test_page_of_the_matrix_has_every_pair() -> None:
    spec = spec_from_file_location("matrix_page", ROOT / "tools" / "matrix_page.py")
    assert spec is not None and spec.loader is not None
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text()
    assert tool.is_complete(page) and "| no |" not in page
