"""How the parity cases of SegPIC's published classes are run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core import parity
from opsin.core.published import Tensors, place
from opsin.restoration.compression.models.segpic.blocks import (
    AttentionGate,
    DownBlock,
    ResidualUnit,
    UpBlock,
)
from opsin.restoration.compression.models.segpic.entropy import EntropyBottleneck
from opsin.restoration.compression.models.segpic.gdn import GDN, InverseGDN
from opsin.restoration.compression.models.segpic.network import STREAMS, SegPIC
from opsin.restoration.compression.models.segpic.regions import (
    GridRegions,
    MaskRegions,
    RegionAdaptiveTransform,
    Regions,
)

GRID = re.compile(r"grid(?: of|=| )* ?(\d+)|(\d+) ?[x×] ?\d+ grid")
UP = re.compile(r"\bup", re.IGNORECASE)
LAMBDA = re.compile(r"loss = ([\d.]+)\*255")


def network_from(arguments: Mapping[str, Any]) -> SegPIC:
    """The network that the published class makes of its arguments `N` and `M`."""
    given = {
        ours: arguments[theirs] for theirs, ours in (("N", "width"), ("M", "latent")) if theirs in arguments
    }
    return SegPIC(**given)


def _placed(module: nn.Module, case: parity.Case, prefix: str = "") -> nn.Module:
    tensors = {n.removeprefix(prefix): t for n, t in case.state_dict().items() if n.startswith(prefix)}
    place(module, SegPIC.from_published(tensors), source=case.name)
    return module.train(case.built_with.get("training", False))


def _grid(case: parity.Case) -> int:
    """The grid that the case states as an input, an argument, or in its text; else that of its codes."""
    inputs = case.meta["inputs"]
    if "grid" in inputs:
        return int(case.inputs()["grid"])
    stated = case.built_with.get("grid", case.meta.get("grid"))
    found = GRID.search(case.meta.get("what", ""))
    codes = case.meta.get("outputs", {}).get("centers", {}).get("shape", [])
    return int(stated or (found[1] or found[2] if found else codes[-1] if len(codes) == 4 else 4))


@parity.adapter("segpic", r"sac\.py SegPIC\b")
def _segpic(case: parity.Case) -> dict[str, Tensor]:
    network, inputs = _placed(network_from(case.built_with), case), case.inputs()
    x = inputs["x"]
    with torch.no_grad():
        out = network(x, inputs.get("mask"), _grid(case))
    bits = torch.stack([-out[f"likelihood_{name}"].log2().sum() for name in STREAMS])
    mse = (out["x_hat"] - x).square().mean()
    bpp = bits.sum() / x[:, 0].numel()
    weight = LAMBDA.search(case.meta.get("what", ""))
    loss = float(weight[1] if weight else 0.0067) * 255**2 * mse + bpp
    return {**out, "bits": bits, "rd": torch.stack((mse, bpp, loss))}


@parity.adapter("segpic", r"sac\.py (RegionAdaTransform|mask_pool2d|mask_expand)")
def _region_adaptive_transform(case: parity.Case) -> dict[str, Tensor]:
    given, inputs = case.built_with, case.inputs()
    transform = RegionAdaptiveTransform(
        given["in_ch"], given["center_ch"], given.get("mid_ch"), given.get("kernel_size", 3)
    )
    _placed(transform, case)
    x = inputs["feat"] if "feat" in inputs else inputs["x"]
    given_codes = [inputs[name] for name in sorted(set(inputs) - {"feat", "x", "mask", "grid"})]
    codes = torch.cat(given_codes) if given_codes else None  # of pictures one after the other
    regions: Regions
    if "mask" in inputs:
        ids = inputs["mask"].reshape(len(x), *inputs["mask"].shape[-2:])
        regions = MaskRegions(ids).reduced(ids.shape[-1] // x.shape[-1])
        codes = None if codes is None else codes.reshape(*codes.shape[:2], 1, 1)
    else:
        regions = GridRegions(_grid(case) if codes is None else codes.shape[-1])
    with torch.no_grad():
        centers = regions.pool(x) if codes is None else codes
        expanded = regions.spread(centers, (x.shape[2], x.shape[3]))
        out = {"out": transform(x, expanded), "expanded": expanded, "centers": centers}
    if isinstance(regions, MaskRegions):
        parts = centers[:, :, 0, 0].split(regions.counts)
        out |= {f"centers{index}": part for index, part in enumerate(parts)}
    return out


def _down(given: dict[str, Any]) -> DownBlock:
    return DownBlock(given.pop("in_c"), given.pop("out_c"), **given)


def _up(given: dict[str, Any]) -> UpBlock:
    norm = InverseGDN if given.pop("inverse", False) else GDN
    return UpBlock(given.pop("in_c"), given.pop("out_c"), norm=norm, **given)


def _gate(given: dict[str, Any]) -> AttentionGate:
    return AttentionGate(
        given["dim"], given.get("window_size", 8), given.get("num_heads", 8), given.get("shift_size", 4)
    )


def _block(name: str, given: Mapping[str, Any]) -> nn.Module:
    """The block of some arguments, whose `name` tells an up block from a down block."""
    if "dim" in given:
        return _gate(dict(given))
    return (_up if UP.search(name) else _down)(dict(given))


@parity.adapter("segpic", r"(Downblock_SAL|Upblock_SAL|Win_noShift_Attention)")
def _blocks(case: parity.Case) -> dict[str, Tensor]:
    """One block after the other where `built_with` names several; a block alone gives `out`."""
    given, x, out = case.built_with, case.inputs()["x"], {}
    chain = [name for name, arguments in given.items() if isinstance(arguments, dict)]
    with torch.no_grad():
        if not chain:
            return {"out": _placed(_block(case.source, given), case)(x)}
        for name in chain:
            x = out[name] = _placed(_block(name, given[name]), case, f"{name}.")(x)
    return out


@parity.adapter("segpic", r"(gdn\.py|layers\.py) .*(GDN|ResidualUnit)")
def _part(case: parity.Case) -> dict[str, Tensor]:
    given, x = case.built_with, case.inputs()["x"]
    module: nn.Module
    if "GDN" in case.source:
        module = (InverseGDN if given.get("inverse") else GDN)(given.get("in_channels", x.shape[1]))
    else:
        module = ResidualUnit(given.get("N", x.shape[1]))
    with torch.no_grad():
        return {"out": _placed(module, case)(x)}


@parity.adapter("segpic", r"EntropyBottleneck")
def _bottleneck(case: parity.Case) -> dict[str, Tensor]:
    x = case.inputs()["x"]
    module = EntropyBottleneck(case.built_with.get("channels", x.shape[1]))
    tensors: Tensors = SegPIC.from_published(case.state_dict())
    place(module, tensors, source=case.name)
    with torch.no_grad():
        value, likelihood = module.eval()(x)
    return {"out": value, "likelihood": likelihood, "aux_loss": module.quantile_loss()}
