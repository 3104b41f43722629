"""How parity cases of the authors' sources are run: the module, four classifiers, two dense forks, AgentSD.

The bias tables tell the shape of an agent attention (heads, agents, sides, reduction), so the cases'
tensors are read for it where the published classes have no argument of one name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.agent_attention import cswin, deit, pvt, swin
from opsin.core.backbones.agent_attention.agent_sd import AgentSD, AgentSDSettings
from opsin.core.backbones.agent_attention.attention import AgentAttention
from opsin.core.backbones.agent_attention.ldm_block import BasicTransformerBlock
from opsin.core.backbones.cases import map_size, run_backbone, run_classifier
from opsin.core.parity import Case, adapter
from opsin.core.published import place

SYSTEM = "agent-attention"
Shapes = Mapping[str, tuple[int, ...]]


def _pair(value: Any) -> tuple[int, int]:
    """A side, or rows and columns, as rows and columns."""
    return (value[0], value[1]) if isinstance(value, Sequence) else (value, value)


def _size(case: Case, tokens: int) -> tuple[int, int]:
    """The map's size: what the case's call says, else what tables were learned for, else a square."""
    given = {**case.built_with, **case.meta.get("call", {})}
    if (
        not {"H", "W"} <= given.keys()
        and "ha_bias" in case.shapes
        and math.prod(_learned(case.shapes)) == tokens
    ):
        return _learned(case.shapes)
    return map_size(case, tokens)


def _arch(case: Case, archs: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    """The variant that the source's factory names, its entries replaced by what the case was built with.

    `names` gives the published argument of entries that it calls otherwise.
    """
    factory = case.source.split(".py", 1)[-1].lower()
    variant = next((name for name in archs if re.search(rf"_{name}\b|_{name[0]}\b", factory)), "tiny")
    return {key: case.built_with.get(names.get(key, key), value) for key, value in archs[variant].items()}


def _arguments(case: Case, names: Iterable[str]) -> dict[str, Any]:
    """Arguments of the published classes that have the same name here, and those that have another."""
    renamed = {"in_chans": "in_channels", "scale": "scale_exponent"}
    found = {renamed.get(key, key): value for key, value in case.built_with.items() if value is not None}
    if "img_size" in found:
        found["img_size"] = _pair(found["img_size"])[0]
    return {key: value for key, value in found.items() if key in names}


def _built_with_classes(case: Case) -> int:
    return int(case.shapes["head.weight"][0]) if "head.weight" in case.shapes else 0


@adapter(SYSTEM, r"agent_(swin|deit)\.py AgentAttention")
@torch.no_grad()
def _run_module(case: Case) -> dict[str, Tensor]:
    shapes = case.shapes
    num_heads, agent_num = shapes["an_bias"][:2]
    attention = AgentAttention(
        shapes["proj.weight"][0],
        num_heads,
        agent_num,
        _learned(shapes),
        qkv_bias="qkv.bias" in shapes,
        class_token="ac_bias" in shapes,
        **_mixing(case),
    )
    return _mix(attention, case)


@adapter(SYSTEM, r"agent_pvt\.py (Agent)?Attention")
@torch.no_grad()
def _run_pvt_module(case: Case) -> dict[str, Tensor]:
    shapes = case.shapes
    dim, qkv_bias = shapes["proj.weight"][0], "q.bias" in shapes
    sr_ratio = shapes["sr.weight"][-1] if "sr.weight" in shapes else 1
    attention: nn.Module
    if "an_bias" in shapes:
        num_heads, agent_num = shapes["an_bias"][:2]
        attention = pvt.AgentReducedAttention(
            dim, num_heads, agent_num, _learned(shapes), sr_ratio, qkv_bias=qkv_bias, **_mixing(case)
        )
    else:
        num_heads = case.built_with["num_heads"]
        attention = pvt.ReducedAttention(dim, num_heads, sr_ratio, qkv_bias=qkv_bias)
    return _mix(attention, case)


@adapter(SYSTEM, r"agent_cswin\.py (Agent|LePE)\w*Attention")
@torch.no_grad()
def _run_cswin_module(case: Case) -> dict[str, Tensor]:
    shapes, built_with = case.shapes, case.built_with
    directions: dict[int, cswin.Direction] = {-1: "whole", 0: "columns", 1: "rows"}
    stripes = cswin.Stripes(directions[built_with.get("idx", -1)], built_with.get("split_size", 7))
    side = _pair(built_with["resolution"])[0]
    dim, num_heads = shapes["get_v.weight"][0], built_with["num_heads"]
    attention: cswin.StripeAttention
    if "an_bias" in shapes:
        agent_num = shapes["an_bias"][1]
        attention = cswin.AgentStripes(dim, num_heads, stripes, agent_num=agent_num, size=(side, side))
    else:
        attention = cswin.SoftmaxStripes(dim, num_heads, stripes)
    place(attention, case.state_dict())
    (qkv,) = case.inputs().values()  # (3, B, N, C)
    (name,) = case.meta["outputs"]
    return {name: attention(qkv.permute(1, 2, 0, 3), (side, side))}


def _learned(shapes: Shapes) -> tuple[int, int]:
    """Rows and columns of the map that bias tables were learned for."""
    return shapes["ha_bias"][2], shapes["wa_bias"][3]


def _mixing(case: Case) -> dict[str, Any]:
    """Further arguments of a module; the dense forks name what it pools to in the singular."""
    shape = case.built_with.get("downstream_agent_shape", case.built_with.get("agent_shape"))
    kernel_size = case.shapes["dwc.weight"][-1]
    agent_shape = None if shape is None else _pair(shape)
    return {"kernel_size": kernel_size, "agent_shape": agent_shape, **_arguments(case, ["scale_exponent"])}


def _mix(attention: nn.Module, case: Case) -> dict[str, Tensor]:
    place(attention, case.state_dict())
    x = next(tensor for tensor in case.inputs().values() if tensor.ndim == 3)
    (name,) = case.meta["outputs"]
    return {name: attention(x, _size(case, x.shape[1] - ("ac_bias" in case.shapes)))}


@adapter(SYSTEM, r"models/agent_deit\.py ")
@torch.no_grad()
def _run_deit(case: Case) -> dict[str, Tensor]:
    shapes = case.shapes
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    width = shapes["cls_token"][2]
    num_heads = case.built_with.get("num_heads", width // 64)
    agents = [shapes.get(f"blocks.{block}.attn.an_bias", (0, 0))[1] for block in sorted(blocks)]
    names = ("img_size", "patch_size", "in_channels", "qkv_bias", "mlp_ratio")
    model = deit.AgentDeiTClassifier(
        {"embed_dim": width, "num_heads": num_heads, "agents": agents},
        num_classes=_built_with_classes(case),
        **_arguments(case, names),
    )
    return run_classifier(model, case)


def _pvt_arch(case: Case) -> dict[str, Any]:
    """Agent-PVT's settings; reduction ratios of agent stages are one string of digits as published."""
    arch = _arch(case, pvt.ARCHS, {})
    arch["agent_sr_ratios"] = [int(ratio) for ratio in arch["agent_sr_ratios"]]
    return arch


PVT_NAMES = ("img_size", "in_channels", "qkv_bias", "kernel_size", "scale_exponent")
SWIN_NAMES = ("img_size", "in_channels", "mlp_ratio", "qkv_bias", "kernel_size", "scale_exponent")


@adapter(SYSTEM, r"models/agent_pvt\.py ")
@torch.no_grad()
def _run_pvt(case: Case) -> dict[str, Tensor]:
    arguments = _arguments(case, PVT_NAMES)
    model = pvt.AgentPVTClassifier(_pvt_arch(case), num_classes=_built_with_classes(case), **arguments)
    return run_classifier(model, case)


@adapter(SYSTEM, r"backbones?/agent_pvt\.py ")
@torch.no_grad()
def _run_dense_pvt(case: Case) -> dict[str, Tensor]:
    names = (*PVT_NAMES, "downstream_agent_shapes", "out_indices")
    return run_backbone(pvt.AgentPVT(_pvt_arch(case), **_arguments(case, names)), case)


def _swin_arguments(case: Case, *dense: str) -> dict[str, Any]:
    """Arguments of Agent-Swin; softmax windows are an eighth of the published `window_size` for agents."""
    agents = case.built_with.get("window_size")
    windows = {} if agents is None else {"window_size": max(7, _pair(agents)[0] // 8)}
    return windows | _arguments(case, (*SWIN_NAMES, *dense))


@adapter(SYSTEM, r"models/agent_swin\.py ")
@torch.no_grad()
def _run_swin(case: Case) -> dict[str, Tensor]:
    arch, num_classes = _arch(case, swin.ARCHS, {}), _built_with_classes(case)
    return run_classifier(
        swin.AgentSwinClassifier(arch, num_classes=num_classes, **_swin_arguments(case)), case
    )


@adapter(SYSTEM, r"backbones?/agent_swin\.py ")
@torch.no_grad()
def _run_dense_swin(case: Case) -> dict[str, Tensor]:
    arguments = _swin_arguments(case, "downstream_agent_shapes", "out_indices")
    return run_backbone(swin.AgentSwin(_arch(case, swin.ARCHS, {}), **arguments), case)


@adapter(SYSTEM, r"models/agent_cswin\.py ")
@torch.no_grad()
def _run_cswin(case: Case) -> dict[str, Tensor]:
    widths = case.built_with.get("la_split_size")
    model = cswin.AgentCSWinClassifier(
        _arch(case, cswin.ARCHS, {"depths": "depth"}),
        num_classes=_built_with_classes(case),
        agent_split_size=[int(width) for width in widths.split("-")] if widths else None,
        **_arguments(case, ("img_size", "in_channels", "split_size", "mlp_ratio", "qkv_bias")),
    )
    return run_classifier(model, case)


class _OneBlockUNet(nn.Module):
    """A UNet of one transformer block, which it gives latents (B, C, h, w) as tokens."""

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        tokens = self.block(latents.flatten(2).transpose(1, 2), context=context)
        return tokens.transpose(1, 2).unflatten(2, latents.shape[2:])


@adapter(SYSTEM, r"agentsd/")
@torch.no_grad()
def _run_agent_sd(case: Case) -> dict[str, Tensor]:
    block = case.built_with["block"]
    unet = _OneBlockUNet(
        BasicTransformerBlock(block["dim"], block["heads"], block["dim_head"], block["context_dim"])
    )
    tensors = {name.removeprefix("model.diffusion_model."): t for name, t in case.state_dict().items()}
    place(unet, tensors)
    inputs = case.inputs()
    known = AgentSDSettings.__dataclass_fields__
    settings = AgentSDSettings(**{k: v for k, v in case.built_with.items() if k in known})
    with AgentSD(unet, settings):
        out = unet(inputs["x"], inputs["context"])
    (name,) = case.meta["outputs"]
    return {name: out}
