"""Names of the published detectors, and how parity cases of the authors' classes are run."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import place as place_tensors
from opsin.detection.models.from_config import detector
from opsin.detection.models.relationnet2.keypoints import KINDS, grid_points
from opsin.detection.models.relationnet2.relation import KeyPoints, Place, PointRelation
from opsin.detection.models.relationnet2.targets import MIN_OVERLAP, point_targets

VARIANTS = {
    name: {"config": f"{name}_coco"}
    for name in (
        "retinanet_r50_bvr",
        "retinanet_x101_dcn_bvr",
        "fcos_x101_dcn_bvr",
        "atss_x101_dcn_bvr",
        "faster_rcnn_r50_bvr",
    )
}
SHORT = {"top_left_corner": "tl", "bottom_right_corner": "br", "center": "center"}


@adapter("relationnet2", r"transformer\.py\s+SimpleBVR_Transformer")
def _relation(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    table = given.get("positional_cfg", {"base_size": [300, 300]})
    kinds = given.get("num_outer_heads", 1)
    module = PointRelation(
        given["embedding_dim"],
        given["num_heads"],
        kinds,
        base_size=table["base_size"],
        log_scale=table.get("log_scale", False),
        shared_positions=given.get("shared_positional_encoding", True),
        appearance=given.get("with_appearance_relation", True),
        geometry=given.get("with_relative_positional_encoding", True),
    )
    place_tensors(module, _without_embedding(case.state_dict()))
    module.eval()
    inputs = case.inputs()
    levels = sorted(int(name[1:]) for name in inputs if re.fullmatch(r"q\d+", name))
    scales = given.get("scale_terms") or 1.0
    outputs = {}
    with torch.no_grad():
        for level in levels:
            at = Place(*inputs[f"p{level}"].unbind(-1))
            keys = [KeyPoints(inputs[f"k{level}{g}"], inputs[f"kp{level}{g}"]) for g in range(kinds)]
            scale = scales[level] if isinstance(scales, list) else scales
            outputs[f"out{level}"] = module(inputs[f"q{level}"], at, keys, float(scale))
    return outputs


@adapter("relationnet2", r"point_kpt_assigner\.py\s+PointKptAssigner")
def _targets(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    inputs = case.inputs()
    boxes = inputs["boxes"].float()
    strides = given["strides"]
    points = [
        grid_points(size, stride, boxes) for size, stride in zip(given["feature_sizes"], strides, strict=True)
    ]
    labels = inputs.get("labels", torch.tensor(given.get("labels", [0] * len(boxes)))).long()
    overlap = given.get("gaussian_iou", MIN_OVERLAP)
    outputs: dict[str, Tensor] = {}
    for kind, where in KINDS.items():
        found = point_targets(points, strides, where(boxes), boxes, labels, given["num_classes"], overlap)
        short = SHORT[kind]
        outputs |= {
            f"{short}_offset": found.offsets,
            f"{short}_score": found.scores,
            f"{short}_mask": found.positive.float(),
        }
    return outputs


@adapter("relationnet2", r"bvr_head\.py\s+BVRHead")
def _detector(case: Case) -> dict[str, Tensor]:
    model = _published_detector(case)
    with torch.no_grad():
        outputs, maps = model.bbox_head.bridge(model.extract_feat(case.inputs()["img"]))
    named: dict[str, Tensor] = {}
    for name, levels in zip(("cls", "box", "centerness"), outputs, strict=False):
        named |= {f"{name}{level}": value for level, value in enumerate(levels)}
    for kind, found in maps.items():
        first = 3  # P3 is the first level
        for level, (logits, offsets) in enumerate(zip(*found, strict=True), start=first):
            named |= {f"{SHORT[kind]}_p{level}": logits, f"{SHORT[kind]}_off_p{level}": offsets}
    return named


def _published_detector(case: Case) -> Any:
    """The detector that the case's config file names, filled from the case."""
    stem = PurePosixPath(case.built_with.get("config") or case.source.split(" in ")[-1].split()[0]).stem
    base, backbone = stem.split("_")[:2]
    name = f"{base}_{backbone}{'_dcn' if 'dcn' in stem else ''}_bvr"
    tensors = _without_embedding(case.state_dict())
    heat_map = next(t for n, t in tensors.items() if re.search(r"keypoint_cls_heads\.\w+\.\d+\.bias$", n))
    model = detector(VARIANTS[name]["config"], num_classes=len(heat_map))
    for own in model.state_dict():  # a shared table has two names, of which cases list the first
        twin = own.replace("reg_transformer.relative", "cls_transformer.relative")
        if own not in tensors and twin in tensors:
            tensors[own] = tensors[twin]
    place_tensors(model, tensors)
    return model.eval()


def _without_embedding(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("base_embedding")}


register_models("relationnet2", detector, VARIANTS)
