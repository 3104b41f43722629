"""Layer-wise learning rates, and weights from a published file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from safetensors.torch import save_file
from torch import nn

from opsin.core.backbones.backbone import Trunk
from opsin.core.errors import UserError


class Deep(Trunk):
    """Two layers below the head's, and an embedding that does not decay."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Parameter(torch.zeros(1, 4))
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.layers[0].requires_grad_(False)
        self.norm = nn.LayerNorm(4)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        layer = {"embedding": 0, "layers.0": 1, "layers.1": 2, "norm": 2}
        return next(depth for key, depth in layer.items() if name.startswith(key)), 4

    def no_weight_decay(self) -> set[str]:
        return {"embedding"}


class Detector(BaseModule):
    """A backbone and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Deep()
        self.head = nn.Linear(4, 2)


def settings(model: nn.Module, **paramwise: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each trained parameter by name."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
            constructor="opsin.LayerDecayConstructor",
            paramwise_cfg=paramwise,
        ),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_rate_falls_with_depth_and_vectors_do_not_decay() -> None:
    assert settings(Detector(), decay=0.5) == {
        "backbone.embedding": (0.125, 0.0),
        "backbone.layers.1.weight": (0.5, 0.05),
        "backbone.layers.1.bias": (0.5, 0.0),
        "backbone.norm.weight": (0.5, 0.0),
        "backbone.norm.bias": (0.5, 0.0),
        "head.weight": (1.0, 0.05),
        "head.bias": (1.0, 0.0),
    }


def test_a_bare_trunk_needs_no_prefix() -> None:
    assert settings(Deep(), decay=0.5)["embedding"] == (0.125, 0.0)


@pytest.mark.parametrize(
    ("paramwise", "message"),
    [
        ({"decay": 1.5}, "decay is 1.5"),
        ({"decay_rate": 0.5}, "no decay_rate"),
        ({"module": "head"}, "get_layer_depth"),
    ],
)
def test_wrong_settings_are_refused(paramwise: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(Detector(), **paramwise)


def test_published_weights_fill_the_module(tmp_path: Path) -> None:
    source = Deep().state_dict()
    tensors = {name: torch.full_like(tensor, i) for i, (name, tensor) in enumerate(source.items())}
    save_file(tensors, tmp_path / "deep.safetensors")
    model = Deep(init_cfg=dict(type="opsin.Published", checkpoint=str(tmp_path / "deep.safetensors")))
    model.init_weights()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())


def test_published_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"layers.0.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    model = Deep(init_cfg=dict(type="opsin.Published", checkpoint=str(tmp_path / "other.pth"), key="model"))
    with pytest.raises(UserError, match="is not for Deep"):
        model.init_weights()
