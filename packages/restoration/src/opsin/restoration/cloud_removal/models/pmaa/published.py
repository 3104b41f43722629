"""How the parity cases of PMAA's published classes are run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core import parity
from opsin.core.published import place
from opsin.restoration.cloud_removal.models.pmaa.discriminator import CloudFreeDiscriminator
from opsin.restoration.cloud_removal.models.pmaa.feature_extractor import (
    CloudTeacher,
    DateFeatures,
    FeatureExtractor,
)
from opsin.restoration.cloud_removal.models.pmaa.network import NORMS, PMAA
from opsin.restoration.cloud_removal.models.pmaa.progressive_block import ProgressiveBlock


def _norm_of(case: parity.Case) -> Any:
    """`instance` for cases of the network whose norms were replaced, which then have no tensors."""
    return "batch" if any(name.endswith("running_mean") for name in case.shapes) else "instance"


def _placed(module: nn.Module, case: parity.Case, prefix: str = "") -> nn.Module:
    tensors = {name.removeprefix(prefix): tensor for name, tensor in case.state_dict().items()}
    place(module, tensors, source=case.name)
    return module.eval()


def _of_date(seen: DateFeatures) -> dict[str, Tensor]:
    return {"mask": seen.mask, "feat": seen.features, "pred": seen.aux}


@parity.adapter("pmaa", r"pmaa\.py PMAA\b")
@torch.no_grad()
def _pmaa(case: parity.Case) -> dict[str, Tensor]:
    given = case.built_with
    arguments = {key: given[key] for key in ("hidden_channels", "out_channels") if key in given}
    network = _placed(
        PMAA(**{"hidden_channels": 64, "out_channels": 3, **arguments}, norm=_norm_of(case)), case
    )
    image, masks, aux = network(case.inputs()["x"])
    dates = {f"mask{t}": mask for t, mask in enumerate(masks.unbind(1))}
    return {"out": image, **dates, **{f"pred{t}": pred for t, pred in enumerate(aux.unbind(1))}}


@parity.adapter("pmaa", r"pmaa\.py OtherUConvBlock\b")
@torch.no_grad()
def _block(case: parity.Case) -> dict[str, Tensor]:
    given = case.built_with
    norm, act = NORMS[_norm_of(case)]
    block = ProgressiveBlock(
        given.get("in_channels", 64),
        given.get("hidden_channels", 128),
        given.get("out_channels", 64),
        given.get("upsampling_depth", 4),
        norm,
        act,
        residual=not given.get("is_first", False),
    )
    return {"out": _placed(block, case, "block.")(case.inputs()["x"])}


@parity.adapter("pmaa", r"pmaa\.py Feature_Extractor\b")
@torch.no_grad()
def _extractor(case: parity.Case) -> dict[str, Tensor]:
    norm, _ = NORMS[_norm_of(case)]
    extractor = FeatureExtractor(4, case.built_with.get("dim", 32), norm)
    return _of_date(_placed(extractor, case, "feature_extractor.")(case.inputs()["x"]))


@parity.adapter("pmaa", r"fe\.py FeatureExtractor\b")
@torch.no_grad()
def _teacher(case: parity.Case) -> dict[str, Tensor]:
    return _of_date(_placed(CloudTeacher(), case)(case.inputs()["x"]))


@parity.adapter("pmaa", r"discriminator\.py Discriminator\b")
@torch.no_grad()
def _discriminator(case: parity.Case) -> dict[str, Tensor]:
    given = case.built_with
    model = CloudFreeDiscriminator(given.get("input_nc", 16), given.get("ndf", 64))
    return {"out": _placed(model, case)(case.inputs()["x"])}
