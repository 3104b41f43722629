"""How parity cases of a network, or of one of its modules, are run, whatever the family."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier
from opsin.core.errors import UserError
from opsin.core.parity import Case
from opsin.core.published import place

_SIZES_IN_WORDS = (r"\bH\s*=\s*(\d+)\W+W\s*=\s*(\d+)", r"(\d+)\s*[x*]\s*(\d+)")


def only_input(case: Case) -> Tensor:
    """The input of a case that has one, whatever it is called."""
    (x,) = case.inputs().values()
    return x


def only_output(case: Case, value: Tensor) -> dict[str, Tensor]:
    """The output of a module that has one, whatever the case calls it."""
    return dict.fromkeys(case.meta["outputs"], value)


def named_maps(case: Case, maps: Sequence[Tensor], stages: Iterable[int]) -> dict[str, Tensor]:
    """Maps of `stages` (from 0) as `stage1`, …, or in their order under the case's own names."""
    by_stage = {f"stage{stage + 1}": x for stage, x in zip(stages, maps, strict=True)}
    names = case.meta["outputs"]
    return by_stage if by_stage.keys() >= set(names) else dict(zip(names, maps, strict=True))


@torch.no_grad()
def run_module(module: nn.Module, case: Case) -> dict[str, Tensor]:
    """A module that makes one output of the case's inputs."""
    place(module.eval(), case.state_dict())
    return only_output(case, module(*case.inputs().values()))


@torch.no_grad()
def run_classifier(model: Classifier, case: Case) -> dict[str, Tensor]:
    """`features`, and the logits under every other name."""
    place(model.eval(), case.state_dict())
    features = model.forward_features(only_input(case))
    return {**only_output(case, model.forward_head(features)), "features": features}


@torch.no_grad()
def run_backbone(backbone: Backbone, case: Case) -> dict[str, Tensor]:
    """The maps of a dense network; see `named_maps`."""
    place(backbone.eval(), case.state_dict())
    return named_maps(case, backbone(only_input(case)), backbone.out_indices)


def set_activation(module: nn.Module, case: Case) -> None:
    """Puts the activation that the case's argument `act_layer` names in place of the module's GELUs."""
    kind = getattr(nn, str(case.built_with.get("act_layer", "GELU")).rpartition(".")[2])
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GELU):
                setattr(part, name, kind())


class Attention(Protocol):
    """An attention whose factor on the logits is its own `scale`, or by the width of its heads if None."""

    scale: float | None


def set_attention_scale(module: nn.Module, case: Case, kind: type[Attention]) -> None:
    """Puts the case's argument `qk_scale`, a factor on the logits, into every attention of class `kind`."""
    for part in module.modules():
        if isinstance(part, kind):
            part.scale = case.built_with.get("qk_scale")


def map_size(case: Case, tokens: int) -> tuple[int, int]:
    """Height and width of a map that a module takes as `tokens` tokens.

    They are arguments (`H` and `W`, or a size), inputs, or words of the case (H=5, W=7; 5x7; 5*7); else the
    map is square.

    Raises:
        UserError: if nothing tells a size of so many tokens.
    """
    side = math.isqrt(tokens)
    for height, width in (*_told_sizes(case), (side, side)):
        if height * width == tokens:
            return height, width
    raise UserError(f"the case {case.name} does not tell height and width as H=…, W=…")


def _told_sizes(case: Case) -> Iterator[tuple[int, int]]:
    calls = [call for key in ("call", "call_with") if isinstance(call := case.meta.get(key), Mapping)]
    inputs = {name: int(value) for name, value in case.inputs().items() if value.numel() == 1}
    for given in (*calls, inputs, case.built_with):
        if {"H", "W"} <= given.keys():
            yield given["H"], given["W"]
        for name in ("input_resolution", "img_size"):
            size = given.get(name)
            if size is not None:
                yield (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)
    words = f"{case.meta.get('what')} {case.meta.get('call')}"
    for pattern in _SIZES_IN_WORDS:
        yield from ((int(height), int(width)) for height, width in re.findall(pattern, words))
