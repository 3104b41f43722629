"""How the parity cases of MedViTV2 are run."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.medical.classification.models.medvitv2.global_block import (
    ConvAttention,
    GlobalBlock,
    PooledKeyAttention,
)
from opsin.medical.classification.models.medvitv2.kan import FasterKAN, KANLayer
from opsin.medical.classification.models.medvitv2.layers import LocalityFeedForward, patch_embed
from opsin.medical.classification.models.medvitv2.local_block import LocalBlock
from opsin.medical.classification.models.medvitv2.network import ARCHS, Arch, MedViTV2Classifier

UNNAMED: Arch = {"depths": (2, 2, 6, 2), "dims": (64, 128, 320, 512)}
"""The published class's own defaults, which are no variant's."""


def _arch_of(case: Case) -> Arch:
    given = case.built_with
    named = re.search(r"MedViT_(\w+)", f"{case.source} {given.get('model', '')}")
    arch = dict(ARCHS[named[1].split("_")[0]] if named else {**ARCHS["tiny"], **UNNAMED})
    keys = {
        "depths": "depths",
        "dims": "dims",
        "stem_chs": "stem",
        "head_dim": "head_dim",
        "mix_block_ratio": "mix_ratio",
        "sr_ratios": "key_pooling",
    }
    return arch | {own: given[key] for key, own in keys.items() if key in given}


@adapter("medvitv2", r"MedViT\.py MedViT(_\w+)?$")
@torch.no_grad()
def _run_network(case: Case) -> dict[str, Tensor]:
    model = MedViTV2Classifier(_arch_of(case), num_classes=case.built_with.get("num_classes", 1000))
    place(model, case.state_dict())
    model.eval()
    pooled = model.forward_features(case.inputs()["x"])
    return {"logits": model.forward_head(pooled), "pooled": pooled}


def _run(module: nn.Module, case: Case) -> dict[str, Tensor]:
    place(module, case.state_dict())
    with torch.no_grad():
        return {"out": module.eval()(*case.inputs().values())}


def _width(case: Case) -> tuple[int, int]:
    return case.built_with["in_channels"], case.built_with["out_channels"]


@adapter("medvitv2", r"MedViT\.py LFP\b")
def _run_local_block(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    keys = ("stride", "kernel_size", "head_dim", "mlp_ratio")
    settings = {key: given[key] for key in keys if key in given}
    return _run(LocalBlock(*_width(case), **settings, dilation=given.get("dilation") or 1), case)


@adapter("medvitv2", r"MedViT\.py GFP\b")
def _run_global_block(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    keys = {
        "stride": "stride",
        "sr_ratio": "pooling",
        "mlp_ratio": "mlp_ratio",
        "head_dim": "head_dim",
        "mix_block_ratio": "mix_ratio",
    }
    settings = {own: given[key] for key, own in keys.items() if key in given}
    return _run(GlobalBlock(*_width(case), **settings), case)


@adapter("medvitv2", r"fasterkan\.py FasterKAN(Layer)?\b")
def _run_kan(case: Case) -> dict[str, Tensor]:
    keys = {"grid_min": "low", "grid_max": "high", "num_grids": "points", "denominator": "width"}
    basis = {own: case.built_with[key] for key, own in keys.items() if key in case.built_with}
    if "FasterKANLayer" in case.source:
        given = case.built_with
        width_in, width_out = given["input_dim"], given["output_dim"]
        return _run(KANLayer(width_in, width_out, **basis), case)
    return _run(FasterKAN(case.built_with["layers_hidden"], **basis), case)


@adapter("medvitv2", r"MedViT\.py E_MHSA\b")
def _run_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    sizes = given["dim"], given.get("head_dim", 32), given.get("sr_ratio", 1), given.get("out_dim")
    return _run(PooledKeyAttention(*sizes), case)


@adapter("medvitv2", r"MedViT\.py MHCA\b")
def _run_conv_attention(case: Case) -> dict[str, Tensor]:
    return _run(ConvAttention(case.built_with["out_channels"], case.built_with["head_dim"]), case)


@adapter("medvitv2", r"MedViT\.py PatchEmbed\b")
def _runpatch_embed(case: Case) -> dict[str, Tensor]:
    return _run(patch_embed(*_width(case), case.built_with.get("stride", 1)), case)


@adapter("medvitv2", r"MedViT\.py LocalityFeedForward\b")
def _run_feed_forward(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    ratio, width = int(given.get("expand_ratio", 4)), given["in_dim"]
    squeezed = width * ratio // given.get("reduction", 4)
    return _run(LocalityFeedForward(width, given.get("kernel_size", 3), ratio, squeezed), case)
