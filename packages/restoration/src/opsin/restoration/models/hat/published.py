"""How the parity cases of HAT's published classes are run."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core import parity
from opsin.core.published import place
from opsin.restoration.models.hat.blocks import (
    CAB,
    HAB,
    OCAB,
    RHAG,
    ChannelAttention,
    Mlp,
    WindowAttention,
    overlap_bias,
)
from opsin.restoration.models.hat.network import HAT, HATTrunk

DEFAULTS: dict[str, Any] = {
    "embed_dim": 96,
    "depths": (6,) * 4,
    "num_heads": (6,) * 4,
    "window_size": 7,
    "mlp_ratio": 4.0,
}
"""Of the published network class where they differ from ours."""


def _arguments(case: parity.Case) -> dict[str, Any]:
    """`built_with` in our names; the published `use_checkpoint` is `with_cp` here."""
    arguments = case.built_with
    if "use_checkpoint" in arguments:
        arguments["with_cp"] = arguments.pop("use_checkpoint")
    return arguments


def _placed(module: nn.Module, case: parity.Case) -> nn.Module:
    place(module, HATTrunk.from_published(case.state_dict()), source=case.name)
    return module.eval()


def _token_map(case: parity.Case, window_size: int) -> Tensor:
    """The input tokens (B, H·W, C) as a map (B, H, W, C).

    The published blocks get (H, W) as a second argument that a case states as `x_size`, or in its text alone.
    """
    x = case.inputs()["x"]
    if x.ndim == 4:
        return x
    tokens = x.shape[1]
    stated = case.inputs().get("x_size", case.meta.get("x_size", case.built_with.get("x_size")))
    sizes = [tuple(map(int, stated))] if stated is not None else []
    sizes += [(int(h), int(w)) for h, w in re.findall(r"(\d+)\s*[x×]\s*(\d+)", case.meta.get("what", ""))]
    sizes.append(tuple(case.built_with.get("input_resolution", (0, 0))))
    rows = [h for h in range(window_size, tokens + 1, window_size) if tokens % (h * window_size) == 0]
    sizes += sorted(((h, tokens // h) for h in rows), key=lambda size: abs(size[0] - size[1]))
    height, width = next(size for size in sizes if size[0] * size[1] == tokens)
    return x.view(x.shape[0], height, width, -1)


def _run_on_tokens(case: parity.Case, block: nn.Module, window_size: int) -> dict[str, Tensor]:
    with torch.no_grad():
        return {"out": _placed(block, case)(_token_map(case, window_size)).flatten(1, 2)}


@parity.adapter("hat", r"hat_arch\.py HAT\b")
def _hat(case: parity.Case) -> dict[str, Tensor]:
    with torch.no_grad():
        return {"out": _placed(HAT(**DEFAULTS | _arguments(case)), case)(case.inputs()["x"])}


@parity.adapter("hat", r"hat_arch\.py HAB\b")
def _hab(case: parity.Case) -> dict[str, Tensor]:
    block = HAB(**_arguments(case))
    return _run_on_tokens(case, block, block.window_size)


@parity.adapter("hat", r"hat_arch\.py OCAB\b")
def _ocab(case: parity.Case) -> dict[str, Tensor]:
    block = OCAB(**_arguments(case))
    places = torch.arange((block.window_size + block.overlap_win_size - 1) ** 2, dtype=torch.float32)
    # A table of its own row numbers gives the index; wrapped rows count from the end, as published.
    first = (2 - block.overlap_win_size) * (block.window_size + block.overlap_win_size)
    index = overlap_bias(places[:, None], block.window_size, block.overlap_win_size)[0, 0]
    index = torch.where(index >= len(places) + first, index - len(places), index)
    return _run_on_tokens(case, block, block.window_size) | {"index_row_sum": index.sum(1)}


@parity.adapter("hat", r"hat_arch\.py RHAG\b")
def _rhag(case: parity.Case) -> dict[str, Tensor]:
    arguments = _arguments(case)
    for ignored in ("img_size", "patch_size", "downsample"):
        arguments.pop(ignored, None)
    return _run_on_tokens(case, RHAG(**arguments), arguments["window_size"])


@parity.adapter("hat", r"hat_arch\.py (CAB|ChannelAttention|Mlp)\b")
def _part(case: parity.Case) -> dict[str, Tensor]:
    arguments = _arguments(case)
    if re.search(r"Mlp\b", case.source):
        width = arguments["in_features"]
        module: nn.Module = Mlp(width, arguments.get("hidden_features") or width)
    elif re.search(r"CAB\b", case.source):
        module = CAB(**arguments)
    else:
        module = ChannelAttention(arguments.pop("num_feat"), arguments.pop("squeeze_factor", 16))
    with torch.no_grad():
        return {"out": _placed(module, case)(case.inputs()["x"])}


@parity.adapter("hat", r"hat_arch\.py WindowAttention\b")
def _window_attention(case: parity.Case) -> dict[str, Tensor]:
    arguments, inputs = _arguments(case), case.inputs()
    if not isinstance(arguments["window_size"], int):
        arguments["window_size"] = arguments["window_size"][0]
    module = WindowAttention(**arguments)
    with torch.no_grad():
        return {"out": _placed(module, case)(inputs["x"][:, None, None])[:, 0, 0]}
