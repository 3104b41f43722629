"""Calls of `mmcv.ops`, at a small and a real size: what opsin is compared with mmcv's compiled extension on.

`benchmarks/compiled_mmcv.py` times them and pins what the compiled build gives at the small size; the tests
of core hold opsin to those numbers. A case names its inputs: a pinned file has them beside the outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Generator, Tensor

Size = Literal["small", "real"]
Inputs = dict[str, Tensor]
PYRAMID = ((200, 304), (100, 152), (50, 76), (25, 38))  # P2..P5 of an 800 x 1216 picture
ENCODER = ((100, 152), (50, 76), (25, 38), (13, 19))  # C3..C6, as Deformable DETR's encoder reads them


@dataclass(frozen=True)
class Case:
    """One call.

    Args:
        inputs: makes the tensors, by name, from a size and a generator.
        call: `call(mmcv.ops, inputs)` gives one tensor.
        leaves: the inputs that get gradients.
        compiled: whether mmcv has compiled CPU code for it; else its own PyTorch code is what users have.
    """

    inputs: Callable[[Size, Generator], Inputs]
    call: Callable[[Any, Mapping[str, Tensor]], Tensor]
    leaves: tuple[str, ...] = ()
    compiled: bool = True


def run(case: Case, ops: Any, inputs: Mapping[str, Tensor]) -> Inputs:
    """The output, and the gradient of each leaf for an output gradient of fixed random numbers."""
    given = {name: tensor.clone().requires_grad_(name in case.leaves) for name, tensor in inputs.items()}
    output = case.call(ops, given)
    found = {"output": output.detach()}
    if case.leaves:
        slope = torch.randn(output.shape, generator=Generator().manual_seed(1))
        gradients = torch.autograd.grad(output, [given[name] for name in case.leaves], slope)
        found |= {f"grad_{name}": grad for name, grad in zip(case.leaves, gradients, strict=True)}
    return found


@contextmanager
def extension(functions: ModuleType) -> Iterator[None]:
    """`mmcv.ops` runs on another extension's `functions` while inside."""
    modules = [
        m
        for name, m in list(sys.modules.items())
        if name.startswith("mmcv.ops.") and hasattr(m, "ext_module")
    ]
    before = [m.ext_module for m in modules]
    for module in modules:
        module.ext_module = functions
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.ext_module = own


def _boxes(count: int, side: float, g: Generator) -> Tensor:
    """(count, 4) xyxy of sizes from 8 px to a third of the side, spread log-uniformly, in the picture."""
    sizes = 8 * (side / 24) ** torch.rand(count, 2, generator=g)
    corners = torch.rand(count, 2, generator=g) * (side - sizes)
    return torch.cat([corners, corners + sizes], 1)


def _detections(count: int) -> Callable[[Size, Generator], Inputs]:
    def make(size: Size, g: Generator) -> Inputs:
        n = count if size == "real" else 60
        boxes = _boxes(n, 800 if size == "real" else 120, g)
        classes = torch.randint(80 if size == "real" else 3, (n,), generator=g)
        scores = (1 + torch.randperm(n, generator=g)) / (n + 1)  # no two alike: their order would be open
        return {"boxes": boxes, "scores": scores, "classes": classes}

    return make


def _regions(output: int, sampling: int, mode: str = "avg") -> Case:
    """1000 proposals, each pooled from the level of its size, as mmdet's `SingleRoIExtractor` does."""

    def make(size: Size, g: Generator) -> Inputs:
        small = size == "small"
        levels = [(12, 19), (6, 10)] if small else list(PYRAMID)
        count, channels, side = (9, 3, 70.0) if small else (1000, 256, 800.0)
        boxes = _boxes(count, side, g)
        scale = ((boxes[:, 2:] - boxes[:, :2]).prod(1)).sqrt()
        level = (scale / 56 + 1e-6).log2().floor().clamp(0, len(levels) - 1)
        maps = {f"p{i}": torch.randn(1, channels, *s, generator=g) for i, s in enumerate(levels)}
        return {**maps, "rois": torch.cat([torch.zeros(count, 1), boxes], 1), "level": level}

    def call(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
        maps = [x[name] for name in x if name.startswith("p")]
        parts = []
        for i, feature in enumerate(maps):
            rois = x["rois"][x["level"] == i]
            parts.append(ops.roi_align(feature, rois, output, 1 / 4 / 2**i, sampling, mode, True))
        return torch.cat(parts)

    return Case(make, call, ("p0", "p1"))


def _convolution(size: Size, g: Generator, *, modulated: bool) -> Inputs:
    channels, height, width = (4, 7, 9) if size == "small" else (256, 100, 152)
    inputs = {
        "x": torch.randn(1, channels, height, width, generator=g),
        "offset": 2 * torch.randn(1, 18, height, width, generator=g),
        "weight": torch.randn(channels, channels, 3, 3, generator=g) / (3 * channels**0.5),
    }
    if modulated:
        inputs["mask"] = torch.rand(1, 9, height, width, generator=g)
        inputs["bias"] = torch.randn(channels, generator=g)
    return inputs


def _attention(size: Size, g: Generator) -> Inputs:
    levels, heads, width = (((5, 7), (3, 4)), 2, 4) if size == "small" else (ENCODER, 8, 32)
    tokens = sum(h * w for h, w in levels)
    weights = torch.rand(1, tokens, heads, len(levels), 4, generator=g)
    return {
        "value": torch.randn(1, tokens, heads, width, generator=g),
        "shapes": torch.tensor(levels),
        "places": 1.2 * torch.rand(1, tokens, heads, len(levels), 4, 2, generator=g) - 0.1,
        "weights": weights / weights.sum((3, 4), keepdim=True),
    }


def _rotated(count: int) -> Callable[[Size, Generator], Inputs]:
    def make(size: Size, g: Generator) -> Inputs:
        n = count if size == "real" else 12
        side = 800.0 if size == "real" else 60.0
        sizes = 8 + torch.rand(n, 2, generator=g) * side / 6
        boxes = torch.cat([torch.rand(n, 2, generator=g) * side, sizes, torch.randn(n, 1, generator=g)], 1)
        return {"boxes": boxes, "scores": torch.rand(n, generator=g)}

    return make


def _psa(size: Size, g: Generator) -> Inputs:
    height, width = (5, 7) if size == "small" else (40, 40)
    return {"x": torch.randn(1, (2 * height - 1) * (2 * width - 1), height, width, generator=g)}


def _psa_mask(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
    height, width = x["x"].shape[2:]
    return ops.PSAMask("collect", (2 * height - 1, 2 * width - 1))(x["x"])


def _logits(size: Size, g: Generator) -> Inputs:
    count, classes = (12, 5) if size == "small" else (200_000, 80)
    target = torch.randint(classes + 1, (count,), generator=g)  # the last is the background
    return {"logits": 2 * torch.randn(count, classes, generator=g) - 2, "target": target}


def _nms(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
    return ops.nms(x["boxes"], x["scores"], 0.5)[1]


def _batched_nms(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
    return ops.batched_nms(x["boxes"], x["scores"], x["classes"], {"type": "nms", "iou_threshold": 0.5})[1]


def _soft_nms(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
    return ops.soft_nms(x["boxes"], x["scores"], 0.3, 0.5, 0.05, method="linear")[0]


def _nms_match(ops: Any, x: Mapping[str, Tensor]) -> Tensor:
    groups = ops.nms_match(torch.cat([x["boxes"], x["scores"][:, None]], 1), 0.5)
    return torch.tensor([float(i) for group in groups for i in [*sorted(map(int, group)), -1]])


CASES: dict[str, Case] = {
    "nms_1000": Case(_detections(1000), _nms),
    "nms_5000": Case(_detections(5000), _nms),
    "nms_20000": Case(_detections(20000), _nms),
    "batched_nms_20000_80_classes": Case(_detections(20000), _batched_nms),
    "soft_nms_2000": Case(_detections(2000), _soft_nms),
    "nms_match_2000": Case(_detections(2000), _nms_match),
    "bbox_overlaps_2000": Case(
        _detections(2000), lambda ops, x: ops.bbox_overlaps(x["boxes"], x["boxes"].flip(0), "iou")
    ),
    "roi_align_7_adaptive": _regions(7, 0),
    "roi_align_14_adaptive": _regions(14, 0),
    "roi_align_7_sampling_2": _regions(7, 2),
    "roi_align_7_maximum": _regions(7, 2, "max"),
    "deform_conv": Case(
        lambda size, g: _convolution(size, g, modulated=False),
        lambda ops, x: ops.deform_conv2d(x["x"], x["offset"], x["weight"], 1, 1, 1, 1, 1),
        ("x", "offset", "weight"),
    ),
    "modulated_deform_conv": Case(
        lambda size, g: _convolution(size, g, modulated=True),
        lambda ops, x: ops.modulated_deform_conv2d(
            x["x"], x["offset"], x["mask"], x["weight"], x["bias"], 1, 1, 1, 1, 1
        ),
        ("x", "offset", "mask", "weight", "bias"),
    ),
    "psa_mask_40": Case(_psa, _psa_mask, ("x",)),
    "box_iou_rotated_500": Case(
        _rotated(500), lambda ops, x: ops.box_iou_rotated(x["boxes"], x["boxes"].flip(0))
    ),
    "nms_rotated_1000": Case(_rotated(1000), lambda ops, x: ops.nms_rotated(x["boxes"], x["scores"], 0.3)[1]),
    "ms_deform_attn": Case(
        _attention,
        lambda ops, x: ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(
            x["value"], x["shapes"], x["places"], x["weights"]
        ),
        ("value", "places", "weights"),
        compiled=False,
    ),
    "sigmoid_focal_loss_200000": Case(
        _logits,
        lambda ops, x: ops.sigmoid_focal_loss(x["logits"], x["target"], 2.0, 0.25, None, "none"),
        ("logits",),
        compiled=False,
    ),
}
