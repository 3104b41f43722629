"""How the parity cases of system `illama` are run. The published names of tensors are this package's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.cases import only_output, run_classifier, run_module
from opsin.core.backbones.illama.model import (
    EPS,
    Block,
    ILLaMAClassifier,
    MaskedAttention,
    SwiGLU,
    rotation,
    soft_mask,
)
from opsin.core.backbones.illama.settings import ARCHS, ILLaMASettings
from opsin.core.backbones.illama.soft_mask import soft_mask_schedule
from opsin.core.parity import Case, adapter
from opsin.core.published import place

# Arguments of the authors' constructors and what they are called here.
_SETTINGS = {
    "embed_dim": "embed_dim",
    "dim": "embed_dim",
    "depth": "depth",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "img_size": "img_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
}
_DEFAULTS = {"embed_dim": 768, "depth": 12, "num_heads": 12}  # those of the authors' VisionTransformer


def _settings(case: Case) -> ILLaMASettings:
    given = case.built_with
    factory = re.search(r"illama_([a-z]+)", case.source.rpartition(".py")[2])
    named = ARCHS[factory[1]] if factory and factory[1] in ARCHS else _DEFAULTS
    settings: dict[str, Any] = {
        ours: given[theirs] for theirs, ours in _SETTINGS.items() if given.get(theirs) is not None
    }
    bias = any(name.endswith("qkv.bias") for name in case.shapes)
    return ILLaMASettings(**{**named, **settings, "qkv_bias": bias})


def _mask(case: Case, tokens: int) -> Tensor:
    """The mask that the case gives as an input, else that of its rate."""
    mask = case.inputs().get("mask")
    rate = float(case.built_with.get("soft_mask_rate") or 0.0)
    return soft_mask(tokens, rate, torch.device("cpu")) if mask is None else mask.float()


@adapter("illama", r"illama\.py (VisionTransformer|illama_)")
@torch.no_grad()
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = ILLaMAClassifier(
        vars(_settings(case)),
        num_classes=case.shapes.get("head.bias", (0,))[0],
        soft_mask_rate=float(case.built_with.get("soft_mask_rate") or 0.0),
    )
    return run_classifier(model, case)


@adapter("illama", r"illama\.py (Block|Attention)\b")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    settings = _settings(case)
    dim, heads = settings.embed_dim, settings.num_heads
    layer: nn.Module = Block(settings)
    if "Attention" in case.source:
        layer = MaskedAttention(dim, heads, qkv_bias=settings.qkv_bias)
    place(layer.eval(), case.state_dict())
    x = next(value for name, value in case.inputs().items() if name != "mask")
    turns = rotation(x.shape[1], dim // heads, x.device)
    return only_output(case, layer(x, turns, _mask(case, x.shape[1])))


@adapter("illama", r"\.py (RMSNorm|SwiGLU|Mlp|FFN|FeedForward)")
@torch.no_grad()
def _run_part(case: Case) -> dict[str, Tensor]:
    shape = case.shapes.get("fc1.weight")
    layer: nn.Module = SwiGLU(shape[1], shape[0]) if shape else nn.RMSNorm(case.shapes["weight"][0], eps=EPS)
    return run_module(layer, case)


@adapter("illama", r"mask_scheduler")
def _run_schedule(case: Case) -> dict[str, Any]:
    """Schedules by name, each given as the text of a call of the authors' function."""
    calls: Mapping[str, str] = case.built_with["calls"]
    return {name: _schedule(call) for name, call in calls.items()}


def _schedule(call: str) -> Any:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    names = ("start", "epochs", "iterations", "cutoff_epoch", "mode", "schedule")
    given = dict(zip(names, (ast.literal_eval(value) for value in node.args), strict=False))
    given |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    if given.pop("mode", "standard") == "standard":
        given["schedule"] = "standard"
    return soft_mask_schedule(**{"schedule": "constant", "cutoff_epoch": 0, **given})
