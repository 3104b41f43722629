"""How the parity cases of BAS's published networks are run."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.errors import UserError
from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.weakly_supervised.models.bas.backbones import (
    BASVGG,
    BASMobileNet,
    BASResNet,
    Depth,
)
from opsin.segmentation.weakly_supervised.models.bas.inception import BASInception
from opsin.segmentation.weakly_supervised.models.bas.localizer import BASLocalizer
from opsin.segmentation.weakly_supervised.models.bas.seeder import BASSeeder
from opsin.segmentation.weakly_supervised.models.map_to_box import box_iou, enlarged, largest_box, normalized

BASIC = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
# the k of the authors' CUB settings, where a case does not tell it
TOP_K = {"vgg": 80, "resnet": 200, "inception": 200, "mobilenet": 80}


def _images(case: Case) -> Tensor:
    """The images: half the noise, plus blocks repeated to its size, where there are any."""
    inputs = case.inputs()
    image = inputs["img"] if "img" in inputs else inputs["x"]
    if "blocks" not in inputs:
        return image
    blocks = inputs["blocks"]
    scale = [image.shape[axis] // blocks.shape[axis] for axis in (2, 3)]
    return 0.5 * image + blocks.repeat_interleave(scale[0], 2).repeat_interleave(scale[1], 3)


def _resnet_depth(given: dict[str, Any]) -> Depth:
    layers = tuple(given.get("layers", (3, 4, 6, 3)))
    if given.get("block") != "BasicBlock":
        return layers
    if layers not in BASIC:
        raise UserError(f"a ResNet of BasicBlocks {layers}", "ResNet-18 and ResNet-34 have them")
    return BASIC[layers]


def _top_k(case: Case, family: str) -> int:
    stated = case.built_with.get("topk", case.built_with.get("top_k"))
    if stated is None:
        found = re.search(r"top-k[ =]+(\d+)", case.meta.get("what", ""))
        stated = found[1] if found else TOP_K[family]
    return min(int(stated), case.built_with.get("num_classes", 200))


def _localizer(case: Case, network: BASLocalizer, family: str) -> dict[str, Tensor]:
    place(network, case.state_dict(), source=case.name)
    network.eval()
    images, labels = _images(case), case.inputs()["label"]
    with torch.no_grad():
        found = network.suppress(images, labels)
        _, best = network.localize(images, _top_k(case, family))
    return {
        "score1": found.scores,
        "score2": found.foreground_scores,
        "bas": found.ratio,
        "area": found.area,
        "map_label": found.foreground,
        "map_topk": best,
        "S": found.whole,
        "S_bg": found.background,
    }


def _settings(case: Case) -> dict[str, Any]:
    """Arguments that the networks share: the number of classes, and which of the two versions."""
    return {
        "num_classes": case.built_with.get("num_classes", 200),
        "first_version": "BAS-Extension" not in case.source,
    }


@adapter("bas", r"resnet\.py ResNetCam\b")
def _resnet(case: Case) -> dict[str, Tensor]:
    return _localizer(case, BASResNet(**_settings(case), depth=_resnet_depth(case.built_with)), "resnet")


@adapter("bas", r"mobilenet\.py Model\b")
def _mobilenet(case: Case) -> dict[str, Tensor]:
    return _localizer(case, BASMobileNet(**_settings(case)), "mobilenet")


@adapter("bas", r"vgg\.py \w+")
def _vgg(case: Case) -> dict[str, Tensor]:
    return _localizer(case, BASVGG(**_settings(case)), "vgg")


@adapter("bas", r"(?i)inception\w*\.py \w+")
def _inception(case: Case) -> dict[str, Tensor]:
    return _localizer(case, BASInception(**_settings(case)), "inception")


@adapter("bas", r"resnet50_bas\.py ResNetCam\b")
def _seeder(case: Case) -> dict[str, Tensor]:
    given, inputs = case.built_with, case.inputs()
    network = BASSeeder(given.get("num_classes", 20), depth=_resnet_depth(given))
    place(network, case.state_dict(), source=case.name)
    network.eval()
    images, present = _images(case), inputs["label"]
    labels = torch.stack([row.nonzero()[pick, 0] for row, pick in zip(present, inputs["pick"], strict=True)])
    with torch.no_grad():
        found = network.suppress(images, labels)
        seeds = network.class_foregrounds(images[0])
    guidance = F.cross_entropy(found.foreground_scores, labels)
    return {
        "score1": found.scores,
        "score2": found.foreground_scores,
        "scalars": torch.stack((guidance, found.ratio.mean(), found.area.mean())),
        "M_fg": found.foreground,
        "cam_test": seeds,
    }


@adapter("bas", r"evaluator\.py")
def _map_to_box(case: Case) -> dict[str, Any]:
    size, inputs = case.built_with.get("crop_size", 224), case.inputs()
    thresholds = inputs["thresholds"].tolist()
    maps = [enlarged(normalized(heat), (size, size)) for heat in inputs["maps"].numpy()]
    boxes = np.stack([[largest_box(heat, threshold) for threshold in thresholds] for heat in maps])
    ious = [
        [box_iou(box, truth) for box in row] for row, truth in zip(boxes, inputs["gt"].numpy(), strict=True)
    ]
    return {"normalized": np.stack(maps), "boxes": boxes, "iou": np.array(ious)}
