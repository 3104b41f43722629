"""How parity cases of the system `ops` are run: one adapter for each published function or layer."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d
from opsin.core.ops.ms_deform_attn import MultiScaleDeformableAttention, ms_deform_attn
from opsin.core.ops.nms import batched_nms, filtered_nms, soft_nms
from opsin.core.ops.roi_align import roi_align
from opsin.core.ops.roi_pool import roi_pool
from opsin.core.parity import Case, adapter
from opsin.core.published import place

Outputs = dict[str, Tensor]


def _weighted_gradients(out: Tensor, leaves: list[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """Gradients of `sum(out * weights)`, of which the first `out.numel()` numbers are taken."""
    return torch.autograd.grad(out, leaves, weights.flatten()[: out.numel()].view(out.shape))


@adapter("ops", r"multi_scale_deformable_attn_pytorch")
def _ms_deform_attn(case: Case) -> Outputs:
    given = case.inputs()
    value, places = given["value"].requires_grad_(), given["loc"].requires_grad_()
    weight = given["weight"].softmax(-1).view(places.shape[:-1]).requires_grad_()
    out = ms_deform_attn(value, torch.tensor(case.built_with["spatial_shapes"]), places, weight)
    grads = _weighted_gradients(out, [value, places, weight], given["g"])
    return {"out": out, "grad_value": grads[0], "grad_loc": grads[1], "grad_weight": grads[2]}


@adapter("ops", r"MultiScaleDeformableAttention")
def _ms_deform_attn_module(case: Case) -> Outputs:
    settings = case.built_with
    shapes = torch.tensor(settings.pop("spatial_shapes"))
    settings.pop("im2col_step", None)  # how mmcv's CUDA kernel cuts the batch
    layer = MultiScaleDeformableAttention(**settings).eval()
    place(layer, case.state_dict())
    given = case.inputs()
    padding = _padded(case, given["value"], bool(settings.get("batch_first")))
    out = layer(
        given["query"],
        given["value"],
        given["ref"],
        shapes,
        query_pos=given.get("pos"),
        key_padding_mask=padding,
    )
    return {"out": out}


def _padded(case: Case, value: Tensor, batch_first: bool) -> Tensor:
    """The mask of padded values, (B, S): the case says in words how many of the last are padding."""
    said = re.search(r"last (\d+) positions", str(case.meta.get("what", "")))
    batch, length = value.shape[:2] if batch_first else (value.shape[1], value.shape[0])
    return (torch.arange(length) >= length - (int(said[1]) if said else 0)).expand(batch, length)


@adapter("ops", r"[Mm]odulated_?[Dd]eform_?[Cc]onv")
def _modulated_deform_conv(case: Case) -> Outputs:
    settings, tensors, given = case.built_with, case.state_dict(), case.inputs()
    weight, bias = tensors["conv.weight"].requires_grad_(), tensors.get("conv.bias")
    window: dict[str, Any] = {
        key: settings[key] for key in ("stride", "padding", "dilation") if key in settings
    }
    x = given["x"].requires_grad_()
    predicted = F.conv2d(
        x, tensors["conv.conv_offset.weight"], tensors["conv.conv_offset.bias"], **window
    ).detach()
    first, second, logits = predicted.chunk(3, 1)
    offset, mask = torch.cat([first, second], 1).requires_grad_(), logits.sigmoid().requires_grad_()
    leaves = [x, offset, mask, weight] + ([] if bias is None else [bias.requires_grad_()])
    groups = {key: settings[key] for key in ("groups", "deform_groups") if key in settings}
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, **window, **groups)
    names = ("grad_x", "grad_offset", "grad_mask", "grad_weight", "grad_bias")
    return {"out": out, **dict(zip(names, _weighted_gradients(out, leaves, given["g"]), strict=False))}


@adapter("ops", r"mmcv\.ops\.roi_align")
def _roi_align(case: Case) -> Outputs:
    """Outputs are named `avg_a1_s2` (mode, aligned, sampling ratio) and `grad_a1_s2`."""
    given, size, scale = case.inputs(), case.built_with["output_size"], case.built_with["spatial_scale"]
    x, outputs = given["x"].requires_grad_(), {}
    for name in case.meta["outputs"]:
        aligned, ratio = (int(number) for number in re.findall(r"_[as](\d+)", name))
        out = roi_align(
            x, given["rois"], size, scale, ratio, "max" if "max" in name else "avg", bool(aligned)
        )
        outputs[name] = _weighted_gradients(out, [x], given["g"])[0] if "grad" in name else out
    return outputs


@adapter("ops", r"roi_pool")
def _roi_pool(case: Case) -> Outputs:
    given = case.inputs()
    x = given["x"].requires_grad_()
    out = roi_pool(x, given["rois"], case.built_with["output_size"], case.built_with["spatial_scale"])
    return {"out": out, "grad_x": _weighted_gradients(out, [x], given["g"])[0]}


@adapter("ops", r"mmcv\.ops\.nms")
def _nms(case: Case) -> Outputs:
    given = case.inputs()
    boxes, scores, labels = given["boxes"], given["scores"], given["labels"]
    runs = {
        "nms_0.5": filtered_nms(boxes, scores, 0.5),
        "nms_0.3": filtered_nms(boxes, scores, 0.3),
        "nms_offset1": filtered_nms(boxes, scores, 0.5, offset=1),
        "nms_thr_max": filtered_nms(boxes, scores, 0.5, score_threshold=0.3, max_num=6),
        **{
            f"soft_{kind}": soft_nms(boxes, scores, 0.3, 0.5, 1e-3, kind)
            for kind in ("linear", "gaussian", "naive")
        },
        "batched": batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5}),
        "agnostic": batched_nms(
            boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5}, class_agnostic=True
        ),
        "batched_soft": batched_nms(
            boxes, scores, labels, {"type": "soft_nms", "iou_threshold": 0.3, "min_score": 0.05}
        ),
    }
    outputs: Outputs = {}
    for name, (dets, keep) in runs.items():
        outputs |= {f"{name}_dets": dets, f"{name}_keep": keep}
    return outputs
