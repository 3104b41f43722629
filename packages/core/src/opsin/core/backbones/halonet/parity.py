"""How parity cases of timm's attention, block and networks are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from opsin.core.backbones.cases import only_input, run_classifier, run_module
from opsin.core.backbones.halonet.attention import HaloAttention
from opsin.core.backbones.halonet.blocks import HaloBlock
from opsin.core.backbones.halonet.network import HaloNet, HaloNetClassifier
from opsin.core.backbones.halonet.settings import ACTIVATIONS, ARCHS, DEFAULTS
from opsin.core.parity import Case, adapter
from opsin.core.published import place


@adapter("halonet", r"halo_attn\.py HaloAttn")
@torch.no_grad()
def _attention_case(case: Case) -> dict[str, Tensor]:
    skipped = ("feat_size", "device", "dtype")
    settings = {key: value for key, value in case.built_with.items() if key not in skipped}
    return run_module(HaloAttention(**settings), case)


@adapter("halonet", r"byo[ab]net\.py SelfAttnBlock")
@torch.no_grad()
def _block_case(case: Case) -> dict[str, Tensor]:
    built_with, shapes = case.built_with, case.shapes
    dim_head = shapes["self_attn.pos_embed.height_rel"][1]
    inner, in_channels = shapes["conv1_1x1.conv.weight"][:2]
    mixed = shapes["post_attn.weight"][0]
    attention = {
        "num_heads": shapes["self_attn.q.weight"][0] // dim_head,
        "dim_head": dim_head,
        "block_size": built_with.get("block_size", 8),
        "halo_size": built_with.get("halo_size", 3),
    }
    block = HaloBlock(
        in_channels,
        inner,
        shapes["conv3_1x1.conv.weight"][0],
        stride=built_with.get("stride", 1),
        act=ACTIVATIONS[built_with.get("act", "relu")],
        drop_path_rate=0.0,
        value_ratio=mixed / inner,
        attention=attention,
    )
    return run_module(block, case)


def _case_arch(case: Case) -> tuple[dict[str, Any], int | Sequence[int] | None]:
    """Settings of the network of a case, and its heads."""
    built_with = case.built_with
    found = re.search(r"byo[ab]net\.py (\w+)", case.source)
    name = str(built_with.get("model_name", found[1] if found else "")).removeprefix("halonet_")
    settings = {**DEFAULTS, **ARCHS[name]}
    settings |= {key: built_with[key] for key in ("widths", "block_size", "halo_size") if key in built_with}
    depths = list(built_with.get("depths", [len(blocks) for blocks in settings["blocks"]]))
    if "depths" not in built_with and built_with.get("l3"):
        depths[2] = built_with["l3"]
    if depths != [len(blocks) for blocks in settings["blocks"]]:
        settings["blocks"] = tuple("A" * depth for depth in depths)
    if "r_b" in built_with:
        settings["out_widths"] = tuple(int(width * built_with["r_b"]) for width in settings["widths"])
    settings["value_ratio"] = built_with.get("r_v", settings["value_ratio"])
    settings["final_width"] = built_with.get("d_f", settings["final_width"])
    return settings, built_with.get("num_heads")


@adapter("halonet", r"byoanet\.py")
@torch.no_grad()
def _network_case(case: Case) -> dict[str, Tensor]:
    arch, num_heads = _case_arch(case)
    staged = [name for name in case.meta["outputs"] if name[-1].isdigit()]
    if staged:
        backbone = HaloNet(arch, num_heads=num_heads).eval()
        place(backbone, case.state_dict())
        prefix, image = staged[0].rstrip("0123456789"), only_input(case)
        found = {f"{prefix}{stage}": x for stage, x in enumerate(backbone(image), 1)}
        found["stem"] = backbone.stem(image)
        return {name: found[name] for name in case.meta["outputs"]}
    classes = case.shapes.get("head.fc.weight", (0,))[0]
    return run_classifier(HaloNetClassifier(arch, num_heads=num_heads, num_classes=classes), case)
