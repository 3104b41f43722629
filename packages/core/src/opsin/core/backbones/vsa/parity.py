"""How parity cases of the authors' classes are run: the attention, both cells, classifier and detector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.cases import map_size, named_maps
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.cells import NormalCell, PyramidReduction, ReductionCell
from opsin.core.backbones.vsa.network import ARCHS, Stage, ViTAEv2VSA, ViTAEv2VSAClassifier
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
    factory = re.search(r"VSA_(48M|B_ws12|B|S)\b", case.source)
    arch = {"48M": "48m", "B": "base", "B_ws12": "base_ws12"}.get(factory[1] if factory else "S", "small")
    fields = {name: given.get(_NAMES.get(name, name), value) for name, value in vars(ARCHS[arch]).items()}
    stages = len(fields["nc_depth"])
    fields |= {name: value[:stages] for name, value in fields.items() if isinstance(value, list | tuple)}
    return {
        "arch": fields | {"pos_size": _pos_size(case), "window_size": _window_size(given)},
        "in_channels": given.get("in_chans", 3),
        "qkv_bias": _has_qkv_bias(case),
        **_flavour(case),
    }


def _window_size(given: Mapping[str, Any]) -> int:
    size = given.get("window_size", 7)
    return int(size[0] if isinstance(size, list | tuple) else size)


def _placed(module: nn.Module, case: Case) -> nn.Module:
    index = "relative_position_index"
    place(module.eval(), {name: t for name, t in case.state_dict().items() if not name.endswith(index)})
    return module


def _as_map(case: Case) -> Tensor:
    """The input as a map; of tokens (B, N, C) the case says the map's sides, or they make a square."""
    x = next(iter(case.inputs().values()))
    if x.ndim == 4:
        return x
    return x.transpose(1, 2).unflatten(2, map_size(case, x.shape[1]))


def _run_module(module: nn.Module, case: Case) -> Tensors:
    """The one output of a module, as a map or, if the case gives it so, as tokens."""
    out: Tensor = _placed(module, case)(_as_map(case))
    tokens = out.flatten(2).transpose(1, 2)
    return {name: tokens if len(spec["shape"]) == 3 else out for name, spec in case.meta["outputs"].items()}


def _attention(case: Case, prefix: str) -> VSAWindowAttention:
    """The attention whose tensors begin with `prefix`; their shapes tell its widths."""
    out_dim, dim = case.shapes[f"{prefix}qkv.weight"][:2]
    return VSAWindowAttention(
        dim,
        case.shapes[f"{prefix}relative_position_bias_table"][1],
        out_dim=out_dim // 3,
        window_size=_window_size(case.built_with),
        qkv_bias=_has_qkv_bias(case),
        **_flavour(case),
    )


def _groups(case: Case, conv: str, in_channels: int) -> int:
    return in_channels // case.shapes[f"{conv}.weight"][1]


def _pyramid(case: Case, prefix: str) -> PyramidReduction:
    given, shapes = case.built_with, case.shapes
    embed_dim, in_channels, kernel_size, _ = shapes[f"{prefix}convs.0.0.weight"]
    convs = sum(
        re.fullmatch(rf"{re.escape(prefix)}convs\.\d+\.0\.weight", name) is not None for name in shapes
    )
    stride = given.get("downsample_ratios", given.get("downsample_ratio", 4))
    return PyramidReduction(
        in_channels,
        embed_dim,
        kernel_size,
        stride,
        given.get("dilations", range(1, convs + 1)),
        given.get("RC_op", given.get("op", "cat")),
    )


def _normal_cell(case: Case, prefix: str) -> NormalCell:
    dim = case.shapes[f"{prefix}norm1.weight"][0]
    return NormalCell(
        dim,
        _attention(case, f"{prefix}attn."),
        _groups(case, f"{prefix}PCM.0", dim),
        pos_size=_pos_size(case),
        mlp_ratio=case.shapes[f"{prefix}mlp.fc1.weight"][0] / dim,
    )


def _reduction_cell(case: Case, prefix: str) -> ReductionCell:
    prm = _pyramid(case, f"{prefix}PRM.")
    in_channels = case.shapes[f"{prefix}PRM.convs.0.0.weight"][1]
    return ReductionCell(
        in_channels,
        prm,
        _attention(case, f"{prefix}attn."),
        _groups(case, f"{prefix}PCM.0", in_channels),
        inner_dim=case.shapes[f"{prefix}PCM.0.weight"][0],
        pos_size=_pos_size(case),
    )


@adapter("vsa", r"\.py VSA\w*Attention")
@torch.no_grad()
def _run_attention(case: Case) -> Tensors:
    return _run_module(_attention(case, ""), case)


@adapter("vsa", r"\.py NormalCell")
@torch.no_grad()
def _run_normal_cell(case: Case) -> Tensors:
    return _run_module(_normal_cell(case, ""), case)


@adapter("vsa", r"\.py ReductionCell")
@torch.no_grad()
def _run_reduction_cell(case: Case) -> Tensors:
    return _run_module(_reduction_cell(case, ""), case)


@adapter("vsa", r"\.py PRM\b")
@torch.no_grad()
def _run_pyramid(case: Case) -> Tensors:
    return _run_module(_pyramid(case, ""), case)


@adapter("vsa", r"\.py BasicLayer")
@torch.no_grad()
def _run_stage(case: Case) -> Tensors:
    cells = {int(found[1]) for name in case.shapes if (found := re.match(r"NC\.(\d+)\.", name))}
    stage = Stage(
        _reduction_cell(case, "RC."), [_normal_cell(case, f"NC.{index}.") for index in sorted(cells)]
    )
    return _run_module(stage, case)


@adapter("vsa", r"\.py .*ViTAE")
@torch.no_grad()
def _run_network(case: Case) -> Tensors:
    arguments = _network_arguments(case)
    if _is_detector(case):
        stages = range(len(arguments["arch"]["nc_depth"]))
        backbone = ViTAEv2VSA(**arguments, out_indices=case.built_with.get("out_indices", stages))
        _placed(backbone, case)
        return named_maps(case, backbone(_as_map(case)), backbone.out_indices)
    model = ViTAEv2VSAClassifier(**arguments, num_classes=case.shapes.get("head.weight", (0,))[0])
    _placed(model, case)
    features = model.forward_features(_as_map(case))
    return {"features": features, "logits": model.forward_head(features)}
