"""How parity cases of the authors' library and of their experiments are run.

The experiments' files give one class different names, so what a case is of is told by its tensors.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.gaussian_adaptive_attention.block import (
    GaussianAdaptiveAttention,
    GaussianBlock,
    MultiHeadGaussianAdaptiveAttention,
)
from opsin.core.backbones.gaussian_adaptive_attention.focal_loss import SoftmaxFocalLoss
from opsin.core.backbones.gaussian_adaptive_attention.grouped_query import GroupedQueryAttention
from opsin.core.backbones.gaussian_adaptive_attention.heads import (
    SYSTEM,
    GATHead,
    GroupedQueryHead,
    LayerHead,
    MHAHead,
)
from opsin.core.backbones.gaussian_adaptive_attention.layer_attention import (
    DensityAdaptiveAttention,
    DensityAdaptiveHeads,
)
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, place

SPEECH_LAYER = 22


def _input(case: Case) -> Tensor:
    return next(iter(case.inputs().values()))


def _named(case: Case, found: dict[str, Tensor]) -> Tensors:
    """What the case asks for: by its name, else the first of what was found that has its shape."""
    outputs = {}
    for name, spec in case.meta["outputs"].items():
        alike = [tensor for tensor in found.values() if list(tensor.shape) == spec["shape"]]
        if name in found or alike:
            outputs[name] = found[name] if name in found else alike[0]
    return outputs


def _attended(case: Case, out: Tensor, weights: list[Tensor]) -> Tensors:
    """The result and the weights: `attention…` with a layer's number, or of the one layer there is."""
    found = {"out": out}
    for name in case.meta["outputs"]:
        if re.search("attention|weight|mixture", name):
            number = re.search(r"\d+$", name)
            found[name] = weights[int(number[0]) if number else 0]
    return _named(case, found)


@adapter(SYSTEM, r"\.py GaussianBlock")
@torch.no_grad()
def _run_block(case: Case) -> Tensors:
    given = case.built_with
    layers = given.get("num_layers", len(given["num_heads"]))
    block = GaussianBlock(
        *(given[name][:layers] for name in ("norm_axes", "num_heads", "num_gaussians")),
        padding_value=given.get("padding_value"),
    )
    place(block, case.state_dict())
    return _attended(case, *block.attend(_input(case)))


@adapter(SYSTEM, r"\.py MultiHeadGaussianAdaptiveAttention")
@torch.no_grad()
def _run_heads(case: Case) -> Tensors:
    given = case.built_with
    heads = MultiHeadGaussianAdaptiveAttention(
        given["norm_axis"],
        given["num_heads"],
        given["num_gaussians"],
        padding_value=given.get("padding_value"),
    )
    place(heads, case.state_dict())
    out, weights = heads.attend(_input(case))
    return _attended(case, out, [weights])


@adapter(SYSTEM, r"\.py GaussianAdaptiveAttention")
@torch.no_grad()
def _run_head(case: Case) -> Tensors:
    given = case.built_with
    head = GaussianAdaptiveAttention(
        given["norm_axis"],
        given.get("num_gaussians", case.shapes["c"][0]),
        padding_value=given.get("padding_value"),
        eps=given.get("eps", 1e-8),
    )
    place(head, case.state_dict())
    out, weights = head.attend(_input(case))
    return _attended(case, out, [weights])


@adapter(SYSTEM, r"FocalLoss")
def _run_focal_loss(case: Case) -> Tensors:
    given = {key: case.built_with[key] for key in ("alpha", "gamma", "reduction") if key in case.built_with}
    inputs = list(case.inputs().values())
    logits = next(tensor for tensor in inputs if tensor.is_floating_point())
    labels = next(tensor for tensor in inputs if not tensor.is_floating_point())
    loss = SoftmaxFocalLoss(**{"reduction": "mean", **given})(logits, labels)
    return dict.fromkeys(case.meta["outputs"], loss)


def _layers_of(x: Tensor) -> Tensor:
    """Features (B, L, F) of a case's, which may be of one layer (B, F) or have a time axis (B, L, T, F)."""
    return x.mean(2) if x.ndim == 4 else x[:, None] if x.ndim == 2 else x


def _run_density(case: Case, module: nn.Module, prefix: str) -> Tensors:
    """One density head or several, on (B, m, F) or (B, m, T, F), with `out` and its gates."""
    assert isinstance(module, DensityAdaptiveAttention | DensityAdaptiveHeads)
    place(module, {re.sub(prefix, "daams.", name): t for name, t in case.state_dict().items()})
    x = _input(case)
    gates = module.gates(_layers_of(x))
    out = x * (gates[:, :, None] if x.ndim == 4 else gates)
    is_gate = {name: re.search("attention|weight|gates?$", name) is not None for name in case.meta["outputs"]}
    return {name: gates if is_gate[name] else out for name in is_gate}


def _run_grouped_query(case: Case) -> Tensors:
    width = case.shapes["q_proj.weight"][0]
    heads = _first(case, 8, "query_heads", "num_heads")
    module = GroupedQueryAttention(width, heads, _first(case, 2, "kv_heads", "num_kv_heads"))
    place(module, case.state_dict())
    return dict.fromkeys(case.meta["outputs"], module(_input(case)))


def _first(case: Case, default: int, *names: str) -> int:
    """The first of several names that the case gives one setting."""
    return int(next((case.built_with[name] for name in names if name in case.built_with), default))


def _head_settings(case: Case) -> dict[str, Any]:
    shapes = case.shapes
    hidden, layers = shapes["conv1.weight"][:2]
    classes, width = shapes["fc.weight"]
    is_text = re.search(r"AG.?News|text", case.source, re.IGNORECASE) is not None
    published = {5120: (64, 80), 512: (64, 8) if is_text else (8, 64)}
    size = case.built_with.get("map_size", published.get(width // layers))
    return {"num_classes": classes, "hidden_dim": hidden} | ({"map_size": size} if size else {})


def _head(case: Case) -> LayerHead:
    """The head that a case's tensors make up."""
    shapes, settings = case.shapes, _head_settings(case)
    layers = shapes["conv1.weight"][1]
    densities = {name for name in shapes if re.search(r"(gcts|daams)\.\d+\.c$", name)}
    if densities:
        features = shapes[min(densities)][1]
        settings["num_heads"] = len(densities)
        if "embed_transform.weight" not in shapes:
            return GATHead(layers, features, **settings)
        return GroupedQueryHead(
            layers,
            features,
            embed_dim=shapes["embed_transform.weight"][0],
            query_heads=_first(case, 8, "query_heads"),
            kv_heads=_first(case, 2, "kv_heads"),
            **settings,
        )
    features = next(shape[1] for name, shape in shapes.items() if name.endswith("in_proj_weight"))
    read = _layers_of(_input(case)).shape[1]
    return MHAHead(
        read if layers == 1 else layers,
        features,
        num_heads=case.built_with.get("num_heads", 8),
        layer=min(SPEECH_LAYER, read - 1) if layers == 1 else None,
        batch_norm="batch_norm.weight" in shapes,
        batch_first=case.built_with.get("batch_first", False),
        **settings,
    )


@adapter(SYSTEM, r"DAAM-PEFT")
@torch.no_grad()
def _run_experiment(case: Case) -> Tensors:
    names = case.shapes
    if "fc.weight" not in names:
        if "q_proj.weight" in names:
            return _run_grouped_query(case)
        if "c" in names:
            return _run_density(case, DensityAdaptiveAttention(names["c"][1]), "^$")
        groups = [shape for name, shape in names.items() if name.endswith(".c")]
        layers = _input(case).shape[1]
        heads = DensityAdaptiveHeads(layers, groups[0][1], len(groups))
        return _run_density(case, heads, r"^(\w+\.)?(gcts|daams)\.")
    head = _head(case).eval()
    place(head, case.state_dict())
    x = _layers_of(_input(case))
    mixed = head.mix(x)
    found = {"logits": head(x), "mixed": mixed, "attended": mixed}
    if isinstance(head, GATHead | GroupedQueryHead):
        found |= {"gated": head.daam(x), "attention": head.daam.gates(x)}
    return _named(case, found)
