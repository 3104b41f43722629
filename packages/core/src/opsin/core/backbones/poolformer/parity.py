"""How parity cases of the authors' classes are run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.backbones.poolformer.arch import ARCHS, Arch
from opsin.core.backbones.poolformer.mixers import Mixer, build_mixer
from opsin.core.backbones.poolformer.network import MetaFormer, MetaFormerBlock, MetaFormerClassifier
from opsin.core.parity import Case, adapter
from opsin.core.published import place

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
    dense = case.built_with.get("fork_feat", "_feat" in case.source)
    arch = vars(_published_arch(case))
    (image,) = case.inputs().values()
    names = case.meta["outputs"]
    if dense:
        backbone = MetaFormer(arch).eval()
        if "norm0.weight" not in case.shapes:  # FORK_LAST3 in the authors' environment
            backbone.norm0 = nn.Identity()
        place(backbone, case.state_dict())
        maps = backbone(image)
        by_stage = {f"stage{stage + 1}": m for stage, m in enumerate(maps)}
        return by_stage if by_stage.keys() >= set(names) else dict(zip(names, maps, strict=True))
    model = MetaFormerClassifier(arch, num_classes=case.built_with.get("num_classes", 1000)).eval()
    place(model, case.state_dict())
    tokens = model.forward_map(image)
    features = tokens.mean((2, 3))
    found = {"tokens": tokens, "features": features}
    return {name: found.get(name, model.forward_head(features)) for name in names}


@adapter("poolformer", r"\.py (PoolFormer|MetaFormer)Block")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    built_with, general = case.built_with, "MetaFormer" in case.source
    mixer = built_with.get("token_mixer", "Identity" if general else "Pooling")
    norm = _published_norm(built_with, "LayerNormChannel" if general else "GroupNorm")
    arch = Arch((1,), (8,), norm=norm, use_layer_scale=built_with.get("use_layer_scale", True))
    mlp_ratio = built_with.get("mlp_ratio", 4.0)
    block = MetaFormerBlock(built_with["dim"], _published_mixer(mixer, built_with), mlp_ratio, arch)
    place(block.eval(), case.state_dict())
    (x,) = case.inputs().values()
    return {name: block.token_mixer(x) if name == "mixed" else block(x) for name in case.meta["outputs"]}


@adapter("poolformer", r"\.py (Pooling|Attention|SpatialFc)")
@torch.no_grad()
def _run_mixer(case: Case) -> dict[str, Tensor]:
    mixer = build_mixer(_published_mixer(_class_of(case), case.built_with), case.built_with.get("dim", 0))
    place(mixer, case.state_dict())
    (x,) = case.inputs().values()
    return dict.fromkeys(case.meta["outputs"], mixer(x))
