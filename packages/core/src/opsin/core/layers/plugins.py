r"""Modules put behind the norms of any network by its config, as channel attention is put into blocks.

    backbone = dict(
        type="opsin.Plugged",
        backbone=dict(type="opsin.ConvNeXt", arch="tiny"),
        plugin=dict(type="opsin.ECA"),
        after=r"stages\.\d\.\d+\.norm",
    )

What is built is the backbone itself, which answers all that it answers otherwise. The plugin is a child of
its norm (`stages.0.0.norm.eca`), so the other names stay, and a file of the plain network loads.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.registry import MODELS


@MODELS.register_module(name="Plugged")
def plugged(backbone: dict[str, Any], plugin: dict[str, Any], after: str) -> nn.Module:
    """Builds `backbone` and puts a `plugin` of its own behind every norm whose name matches `after`.

    Args:
        backbone: config of any network.
        plugin: config of a module (N, C, H, W) to the same shape that takes `in_channels`; the tokens of a
            LayerNorm (N, …, C) come to it as a map (N, C, tokens, 1).
        after: regex of names of norms, matched as a whole.

    Returns:
        The network; `plugged` lists its plugins' names.

    Raises:
        UserError: if nothing matches, or something that is no norm.
    """
    network: nn.Module = MODELS.build(backbone)
    found = {name: module for name, module in network.named_modules() if re.fullmatch(after, name)}
    if not found:
        norms = [name for name, module in network.named_modules() if _channels(module)]
        raise UserError(f"after={after!r} matches no part of {type(network).__name__}", f"norms: {norms[:5]}")
    names = []
    for name, norm in found.items():
        channels = _channels(norm)
        if not channels:
            raise UserError(f"after={after!r} matches {name}, which is a {type(norm).__name__} and no norm")
        layer = MODELS.build({**plugin, "in_channels": channels})
        key = getattr(layer, "_abbr_", type(layer).__name__.lower())
        norm.add_module(key, layer)
        norm.register_forward_hook(_apply_plugin)
        names.append(f"{name}.{key}.")
    network.plugged = tuple(names)  # type: ignore[assignment] # a note, not a module
    return network


def _channels(norm: nn.Module) -> int:
    """How many channels a norm has, 0 for anything else."""
    if isinstance(norm, nn.LayerNorm):
        return norm.normalized_shape[-1]
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    return int(getattr(norm, "num_features", 0)) if isinstance(norm, nn.BatchNorm2d) else 0


def _apply_plugin(norm: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """A norm's output after the norm's plugin."""
    (plugin,) = norm.children()
    if not isinstance(norm, nn.LayerNorm) or isinstance(norm, LayerNorm2d):
        return plugin(output)
    channels_first = output.flatten(1, -2).transpose(1, 2).unsqueeze(-1)  # N C tokens 1
    return plugin(channels_first).squeeze(-1).transpose(1, 2).view_as(output)
