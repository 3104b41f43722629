"""How the parity cases of system `maxvit` are run: one function a class of timm's port.

What the port calls its arguments differs from case to case, so blocks are built by the shapes of their
tensors.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from opsin.core.backbones.cases import only_input, only_output, run_module
from opsin.core.backbones.maxvit.attention import (
    PARTITIONS,
    Axis,
    MultiAxisAttention,
    Pair,
    RelativeAttention,
)
from opsin.core.backbones.maxvit.mbconv import MbConv, Stem
from opsin.core.backbones.maxvit.network import TABLE, Block, MaxViTClassifier
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, place


def _part(case: Case, prefix: str = "") -> Tensors:
    return {n.removeprefix(prefix): t for n, t in case.state_dict().items() if n.startswith(prefix)}


def _window(table: Tensor) -> Pair:
    return (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2


def _block_arguments(tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """Window, grid, head width and expansion of a block, read off the shapes of its tensors."""
    tables = [tensors[f"{prefix}attn_{axis}.attn.rel_pos.{TABLE}"] for axis in PARTITIONS]
    hidden, dim = tensors[f"{prefix}attn_block.mlp.fc1.weight"].shape
    return {
        "window": _window(tables[0]),
        "grid": _window(tables[1]),
        "head_dim": dim // len(tables[0]),
        "expand_ratio": hidden / dim,
    }


def _stride(case: Case, tensors: Tensors, prefix: str = "") -> int:
    """1 or 2, whatever argument of the port says it; a block that changes width is strided."""
    given = [case.built_with[key] for key in ("stride", "pool_stride") if key in case.built_with]
    return int(given[0]) if given else 2 if f"{prefix}shortcut.expand.weight" in tensors else 1


@adapter("maxvit", r"maxxvit\.py MbConvBlock")
@torch.no_grad()
def _run_mbconv(case: Case) -> dict[str, Tensor]:
    tensors = _part(case)
    dim, hidden = tensors["conv3_1x1.weight"].shape[:2]
    block = MbConv(
        len(tensors["pre_norm.weight"]),
        dim,
        _stride(case, tensors),
        expand_ratio=hidden / dim,
        kernel_size=tensors["conv2_kxk.weight"].shape[2],
        se_ratio=case.built_with.get("se_ratio", 0.25) if "se.fc1.weight" in tensors else 0.0,
    )
    return run_module(block, case)


@adapter("maxvit", r"maxxvit\.py MaxxVitBlock")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    tensors = _part(case)
    in_channels, dim = len(tensors["conv.pre_norm.weight"]), len(tensors["conv.conv3_1x1.weight"])
    block = Block(in_channels, dim, _stride(case, tensors, "conv."), **_block_arguments(tensors))
    return run_module(block, case)


@adapter("maxvit", r"maxxvit\.py PartitionAttentionCl")
@torch.no_grad()
def _run_multi_axis(case: Case) -> dict[str, Tensor]:
    """One attention, or both in order, each under its own prefix, on a channels-last map."""
    x = only_input(case)
    outputs: dict[str, Tensor] = {}
    axes: list[Axis] = [
        axis for axis in PARTITIONS if any(name.startswith(f"{axis}.") for name in case.shapes)
    ]
    for axis in axes or [case.built_with.get("partition_type", "block")]:
        tensors = _part(case, f"{axis}." if axes else "")
        table = tensors[f"attn.rel_pos.{TABLE}"]
        hidden, dim = tensors["mlp.fc1.weight"].shape
        module = MultiAxisAttention(
            dim, axis, _window(table), head_dim=dim // len(table), mlp_ratio=hidden / dim
        )
        place(module.eval(), tensors)
        x = outputs[axis] = module(x)
    return outputs if len(axes) > 1 else only_output(case, x)


@adapter("maxvit", r"maxxvit\.py AttentionCl")
@torch.no_grad()
def _run_attention(case: Case) -> dict[str, Tensor]:
    tensors, x = _part(case), only_input(case)
    table, dim = tensors[f"rel_pos.{TABLE}"], tensors["proj.weight"].shape[0]
    attention = RelativeAttention(dim, dim // len(table), _window(table))
    place(attention, tensors)
    return only_output(case, attention(x.flatten(1, -2)).view(x.shape))


@adapter("maxvit", r"maxxvit\.py Stem")
@torch.no_grad()
def _run_stem(case: Case) -> dict[str, Tensor]:
    tensors = _part(case)
    width, in_channels = tensors["conv1.weight"].shape[:2]
    stem = Stem(in_channels, width)
    return run_module(stem, case)


@adapter("maxvit", r"maxxvit\.py (MaxxVit\b|maxvit_)")
@torch.no_grad()
def _run_network(case: Case) -> dict[str, Tensor]:
    """The classifier that the case's tensors make; every map and vector on the way, by name."""
    tensors = _part(case)
    blocks = [re.match(r"stages\.(\d+)\.blocks\.(\d+)\.conv\.pre_norm\.weight", name) for name in tensors]
    stages = [int(block[1]) for block in blocks if block]
    depths = [stages.count(stage) for stage in range(max(stages) + 1)]
    dims = [len(tensors[f"stages.{stage}.blocks.0.conv.conv3_1x1.weight"]) for stage in range(len(depths))]
    settings = _block_arguments(tensors, "stages.0.blocks.0.")
    model = MaxViTClassifier(
        {"stem_width": len(tensors["stem.conv2.weight"]), "depths": depths, "embed_dims": dims},
        num_classes=len(tensors["head.fc.weight"]) if "head.fc.weight" in tensors else 0,
        in_channels=tensors["stem.conv1.weight"].shape[1],
        window_size=settings.pop("window"),
        grid_size=settings.pop("grid"),
        **settings,
    )
    place(model.eval(), tensors)
    maps = model.forward_stages(only_input(case))
    features = model.forward_pool(maps[-1])
    named = {f"stage{stage}": x for stage, x in enumerate(maps)}
    return named | {"stem": maps[0], "features": features, "logits": model.forward_head(features)}
