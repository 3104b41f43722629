"""How parity cases of the authors' classes are run: the attention, both cells, classifier and detector."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.cells import NormalCell, PyramidReduction, ReductionCell
from opsin.core.backbones.vsa.network import ARCHS, ViTAEv2VSA, ViTAEv2VSAClassifier
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, place

# the authors' names of settings that have another one here
_NAMES = {
    "nc_depth": "NC_depth",
    "nc_heads": "NC_heads",
    "rc_heads": "RC_heads",
    "nc_group": "NC_group",
    "rc_group": "RC_group",
    "kernel_sizes": "kernel_size",
    "rc_op": "RC_op",
}


def _is_detector(case: Case) -> bool:
    return re.search(r"detection|segmentation|mmdet|mmseg", case.source, re.IGNORECASE) is not None


def _flavour(case: Case) -> dict[str, bool]:
    return dict.fromkeys(("centred_padding", "swapped_divisors"), _is_detector(case))


def _pos_size(case: Case) -> int:
    """Side of the position convolutions, which commits differ in; 0 if the case has none."""
    return next((shape[-1] for name, shape in case.shapes.items() if name.endswith("pos.weight")), 0)


def _has_qkv_bias(case: Case) -> bool:
    return any(name.endswith("qkv.bias") for name in case.shapes)


def _network_arguments(case: Case) -> dict[str, Any]:
    given = case.built_with
    factory = re.search(r"VSA_(wide_S|48M|B_ws12|B|S)\b|wide.?pcm", case.source, re.IGNORECASE)
    named = {"48m": "48m", "b": "base", "b_ws12": "base_ws12", "s": "small", None: "small"}
    arch = named.get(factory and factory[1] and factory[1].lower(), "wide_small")
    fields = {name: given.get(_NAMES.get(name, name), value) for name, value in vars(ARCHS[arch]).items()}
    stages = len(fields["nc_depth"])
    fields |= {name: value[:stages] for name, value in fields.items() if isinstance(value, list | tuple)}
    return {
        "arch": fields | {"pos_size": _pos_size(case)},
        "in_channels": given.get("in_chans", 3),
        "qkv_bias": _has_qkv_bias(case),
        **_flavour(case),
    }


def _placed(module: nn.Module, case: Case) -> nn.Module:
    index = "relative_position_index"
    place(module.eval(), {name: t for name, t in case.state_dict().items() if not name.endswith(index)})
    return module


def _as_map(case: Case) -> Tensor:
    """The input as a map; of tokens (B, N, C) the case says the map's sides, or they make a square."""
    x = next(iter(case.inputs().values()))
    if x.ndim == 4:
        return x
    told = {**case.built_with, **case.meta.get("call", {})}
    text = re.search(r"(\d+)\s*x\s*(\d+)\s*map|H\s*=\s*(\d+)\W+W\s*=\s*(\d+)", str(case.meta.get("what")))
    if {"H", "W"} <= told.keys():
        height, width = int(told["H"]), int(told["W"])
    elif text:
        height, width = (int(side) for side in text.groups() if side)
    else:
        height = width = round(x.shape[1] ** 0.5)
    return x.transpose(1, 2).unflatten(2, (height, width))


def _outputs(case: Case, found: Tensors, otherwise: Tensor) -> Tensors:
    """What the case asks for, as maps or, by the shape that it names, as tokens."""
    outputs = {}
    for name, spec in case.meta["outputs"].items():
        value = found.get(name, otherwise)
        is_tokens = bool(spec) and len(spec["shape"]) == 3 and value.ndim == 4
        outputs[name] = value.flatten(2).transpose(1, 2) if is_tokens else value
    return outputs


@adapter("vsa", r"VSAWindowAttention|VSA_?Attention")
@torch.no_grad()
def _run_attention(case: Case) -> Tensors:
    given = case.built_with
    attn = VSAWindowAttention(
        given["dim"],
        given["num_heads"],
        out_dim=given.get("out_dim"),
        window_size=_window_size(given, 7),
        qkv_bias=_has_qkv_bias(case),
        **_flavour(case),
    )
    return _outputs(case, {}, _placed(attn, case)(_as_map(case)))


def _window_size(given: dict[str, Any], default: int) -> int:
    size = given.get("window_size", default)
    return int(size[0] if isinstance(size, list | tuple) else size)


def _attention_of_cell(case: Case, dim: int, heads: int, out_dim: int) -> VSAWindowAttention:
    return VSAWindowAttention(
        dim,
        heads,
        out_dim=out_dim,
        window_size=_window_size(case.built_with, 7),
        qkv_bias=_has_qkv_bias(case),
        **_flavour(case),
    )


def _number(given: dict[str, Any], *names: str) -> int:
    """The first of several names that commits give one argument."""
    return int(next(given[name] for name in names if given.get(name) is not None))


@adapter("vsa", r"NormalCell")
@torch.no_grad()
def _run_normal_cell(case: Case) -> Tensors:
    given = case.built_with
    dim, heads = given["dim"], _number(given, "num_heads", "heads")
    cell = NormalCell(
        dim,
        _attention_of_cell(case, dim, heads, dim),
        _number({"group": 64, **given}, "groups", "group"),
        pos_size=_pos_size(case),
        mlp_ratio=given.get("mlp_ratio", 4.0),
    )
    return _outputs(case, {}, _placed(cell, case)(_as_map(case)))


@adapter("vsa", r"ReductionCell")
@torch.no_grad()
def _run_reduction_cell(case: Case) -> Tensors:
    given, shapes = case.built_with, case.shapes
    embed_dim, in_channels, kernel_size, _ = shapes["PRM.convs.0.0.weight"]
    prm = _pyramid(given, in_channels, embed_dim, kernel_size)
    heads = _number({"num_heads": 1, **given}, "heads", "num_heads")
    cell = ReductionCell(
        in_channels,
        prm,
        _attention_of_cell(case, prm.out_channels, heads, shapes["norm2.weight"][0]),
        in_channels // shapes["PCM.0.weight"][1],
        inner_dim=shapes["PCM.0.weight"][0],
        pos_size=_pos_size(case),
    )
    return _outputs(case, {}, _placed(cell, case)(_as_map(case)))


def _pyramid(given: dict[str, Any], in_channels: int, embed_dim: int, kernel_size: int) -> PyramidReduction:
    return PyramidReduction(
        in_channels,
        embed_dim,
        kernel_size,
        _number({"downsample_ratio": 4, **given}, "downsample_ratios", "downsample_ratio"),
        given.get("dilations", (1, 2, 3, 4)),
        given.get("RC_op", given.get("op", "cat")),
    )


@adapter("vsa", r"\bPRM\b")
@torch.no_grad()
def _run_pyramid(case: Case) -> Tensors:
    embed_dim, in_channels, kernel_size, _ = case.shapes["convs.0.0.weight"]
    prm = _pyramid(case.built_with, in_channels, embed_dim, kernel_size)
    return _outputs(case, {}, _placed(prm, case)(_as_map(case)))


@adapter("vsa", r"ViTAEv?2?_?VSA")
@torch.no_grad()
def _run_network(case: Case) -> Tensors:
    arguments = _network_arguments(case)
    if _is_detector(case):
        stages = range(len(arguments["arch"]["nc_depth"]))
        backbone = ViTAEv2VSA(**arguments, out_indices=case.built_with.get("out_indices", stages))
        _placed(backbone, case)
        maps = backbone(_as_map(case))
        found = {f"stage{index + 1}": m for index, m in zip(backbone.out_indices, maps, strict=True)}
        names = case.meta["outputs"]
        return found if found.keys() >= set(names) else dict(zip(names, maps, strict=True))
    classes = case.shapes.get("head.weight", (0,))[0]
    model = ViTAEv2VSAClassifier(**arguments, num_classes=classes)
    _placed(model, case)
    *_, last = model.maps(_as_map(case))
    features = last.mean((2, 3))
    logits = model.forward_head(features)
    return _outputs(case, {"features": features, "logits": logits, "tokens": last}, logits)
