"""How parity cases of the authors' classes are run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.backbones.cases import only_input, run_backbone, run_classifier, run_module, set_activation
from opsin.core.backbones.poolformer.arch import ARCHS, Arch
from opsin.core.backbones.poolformer.mixers import Mixer, PositionTable, build_mixer
from opsin.core.backbones.poolformer.network import (
    MetaFormer,
    MetaFormerBlock,
    MetaFormerClassifier,
    Mlp,
    PatchEmbed,
)
from opsin.core.parity import Case, adapter

_PUBLISHED_MIXERS = {
    "Identity": "identity",
    "Pooling": "pooling",
    "Attention": "attention",
    "SpatialFc": "spatial_fc",
}


def _numbers(text: str) -> tuple[int, ...]:
    """The arguments in a published part: (7, 7) of 'AddPositionEmb(7,7)'."""
    return tuple(map(int, re.findall(r"\d+", text)))


def _published_mixer(text: str, settings: Mapping[str, Any]) -> Mixer:
    name = re.search("|".join(_PUBLISHED_MIXERS), text)
    kind = _PUBLISHED_MIXERS[name[0] if name else "Identity"]
    arguments = {
        "spatial_fc": ("spatial_shape",),
        "attention": ("head_dim", "qkv_bias"),
        "pooling": ("pool_size",),
    }
    given = {key: settings[key] for key in arguments.get(kind, ()) if key in settings}
    if kind == "spatial_fc":
        given.setdefault("spatial_shape", _numbers(text) or (14, 14))
    return {"type": kind, **given}


def _published_norm(built_with: Mapping[str, Any], default: str) -> Literal["group", "channel"]:
    return "channel" if "LayerNorm" in str(built_with.get("norm_layer", default)) else "group"


def _class_of(case: Case) -> str:
    return case.source.rsplit(".py", 1)[-1]


def _published_arch(case: Case) -> Arch:
    """The settings of a published class or factory."""
    built_with = case.built_with
    factory = re.search(r"(pool|meta)former_\w+?(?=_feat|\)|$|\s)", _class_of(case))
    named = ARCHS.get(factory[0]) if factory else None
    general = "metaformer.py" in case.source
    mixer, norm = ("identity", "LayerNormChannel") if general else ("pooling", "GroupNorm")
    default = named or Arch((2,), (64,), mixer)
    copied = set(vars(default)) - {"token_mixers", "norm", "pos_grids"}
    given = {name: built_with[name] for name in copied if built_with.get(name) is not None}
    if "norm_layer" in built_with or named is None:
        given["norm"] = _published_norm(built_with, norm)
    if built_with.get("token_mixers"):
        given["token_mixers"] = [_published_mixer(text, built_with) for text in built_with["token_mixers"]]
    elif "pool_size" in built_with and not general:
        given["token_mixers"] = {"type": "pooling", "pool_size": built_with["pool_size"]}
    if built_with.get("add_pos_embs"):
        given["pos_grids"] = [text and _numbers(str(text)) for text in built_with["add_pos_embs"]]
    return replace(default, **given)


@adapter("poolformer", r"\.py (PoolFormer\b|MetaFormer\b|poolformer_|metaformer_)")
@torch.no_grad()
def _run_network(case: Case) -> dict[str, Tensor]:
    arch = vars(_published_arch(case))
    if case.built_with.get("fork_feat", "_feat" in case.source):
        backbone = MetaFormer(arch)
        set_activation(backbone, case)
        if "norm0.weight" not in case.shapes:  # FORK_LAST3 in the authors' environment
            backbone.norm0 = nn.Identity()
        return run_backbone(backbone, case)
    model = MetaFormerClassifier(arch, num_classes=case.built_with.get("num_classes", 1000))
    set_activation(model, case)
    found = {**run_classifier(model, case), "tokens": model.forward_map(only_input(case))}
    return {name: found[name] for name in case.meta["outputs"]}


@adapter("poolformer", r"\.py (PoolFormer|MetaFormer)Block")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    built_with, general = case.built_with, "MetaFormer" in case.source
    mixer = built_with.get("token_mixer", "Identity" if general else "Pooling")
    norm = _published_norm(built_with, "LayerNormChannel" if general else "GroupNorm")
    arch = Arch((1,), (8,), norm=norm, use_layer_scale=built_with.get("use_layer_scale", True))
    mlp_ratio = built_with.get("mlp_ratio", 4.0)
    block = MetaFormerBlock(built_with["dim"], _published_mixer(mixer, built_with), mlp_ratio, arch)
    set_activation(block, case)
    return {**run_module(block, case), "mixed": block.token_mixer(only_input(case))}


@adapter("poolformer", r"\.py (Pooling|Attention|SpatialFc)")
def _run_mixer(case: Case) -> dict[str, Tensor]:
    mixer = build_mixer(_published_mixer(_class_of(case), case.built_with), case.built_with.get("dim", 0))
    return run_module(mixer, case)


@adapter("poolformer", r"\.py (Mlp|PatchEmbed|AddPositionEmb|LayerNormChannel|GroupNorm)")
def _run_part(case: Case) -> dict[str, Tensor]:
    shapes, built_with = case.shapes, case.built_with
    if "pos_embed" in shapes:
        _, dim, *grid = shapes["pos_embed"]
        return run_module(PositionTable(dim, (grid[0], grid[1])), case)
    if "fc1.weight" in shapes:
        hidden_dim, dim = shapes["fc1.weight"][:2]
        return run_module(Mlp(dim, hidden_dim), case)
    if "proj.weight" in shapes:
        dim, in_channels, patch_size, _ = shapes["proj.weight"]
        stride, padding = built_with.get("stride", 16), built_with.get("padding", 0)
        return run_module(PatchEmbed(in_channels, dim, patch_size, stride, padding), case)
    norm = Arch((1,), (8,), norm=_published_norm({"norm_layer": case.source}, ""))
    return run_module(norm.make_norm(shapes["weight"][0]), case)
