"""A published detector by the name of its config, so that its structure stands in one place."""

from __future__ import annotations

from typing import Any

from torch import nn

from opsin.core.engine.config import build_model, load_config


def detector(config: str, *, num_classes: int | None = None) -> nn.Module:
    """The detector of a config, with random weights.

    Args:
        config: short name of a config.
        num_classes: classes of every head, if they are not to be the config's.
    """
    cfg = load_config(config)
    cfg.model.backbone.init_cfg = None
    if num_classes is not None:
        set_classes(cfg.model, num_classes)
    model: nn.Module = build_model(cfg)
    return model


def set_classes(node: Any, count: int) -> None:
    """Sets `num_classes` of every part of a detector's config but the RPN, which has one class."""
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"] = count
        for name, child in node.items():
            if name != "rpn_head":
                set_classes(child, count)
    elif isinstance(node, list):
        for child in node:
            set_classes(child, count)
