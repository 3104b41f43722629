"""ECA in stock mmdet's ResNet by a line of the config."""

from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from stock_data import write_coco
from stock_runs import check, run, small_config

from opsin.core.backbones.eca_net import ECAResNet

SMALL = {"block": "bottleneck", "depths": (3, 4, 6, 3), "widths": (8, 16, 32, 64), "k_sizes": (3, 5, 5, 7)}


def plugin(stage, **eca):
    stages = tuple(index == stage for index in range(4))
    return {"cfg": {"type": "opsin.ECA", **eca}, "stages": stages, "position": "after_conv3"}


@torch.no_grad()
def test_stock_resnet_with_the_plugin_is_an_eca_resnet():
    plugins = [plugin(stage, k_size=size) for stage, size in enumerate(SMALL["k_sizes"])]
    resnet = {"type": "mmdet.ResNet", "depth": 50, "base_channels": 8, "stem_channels": 8}
    stock = MODELS.build({**resnet, "plugins": plugins})
    own = ECAResNet(SMALL)
    stock.load_state_dict(own.state_dict())
    stock.eval()
    image = torch.randn(1, 3, 70, 97)
    for got, want in zip(stock(image), own.eval()(image), strict=True):
        assert torch.allclose(got, want, atol=1e-4 * want.abs().max().item())


def test_eca_adds_eighty_parameters_to_a_resnet_50_and_keeps_its_names():
    with torch.device("meta"):
        plain, eca = MODELS.build({"type": "mmdet.ResNet", "depth": 50}), ECAResNet("50")
    own = {name: tensor for name, tensor in eca.state_dict().items() if ".eca." not in name}
    assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in plain.state_dict().items()}
    assert sum(p.numel() for p in eca.parameters()) - sum(p.numel() for p in plain.parameters()) == 80


def test_stock_detector_trains_with_the_plugin(tmp_path: Path):
    data = write_coco(tmp_path / "data", CocoDataset.METAINFO["classes"])
    detector = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco"
    one_line = [{"cfg": {"type": "opsin.ECA"}, "position": "after_conv3"}]
    changes = {
        "model.backbone.plugins": one_line,
        # the norm before ECA begins at zero, and so do the gradients of the filters
        "model.backbone.zero_init_residual": False,
        "param_scheduler": [],
        "optim_wrapper.optimizer.lr": 0.1,
    }
    cfg = small_config(detector, data, tmp_path / "work", changes)
    outcome = run(cfg)
    check(outcome)
    filters = [name for name in outcome.first.initial if ".eca." in name]
    assert len(filters) == 16
    moved = [n for n in filters if not outcome.first.initial[n].equal(outcome.after_first[n])]
    assert {name.split(".")[1] for name in moved} == {"layer2", "layer3", "layer4"}  # layer1 is frozen
