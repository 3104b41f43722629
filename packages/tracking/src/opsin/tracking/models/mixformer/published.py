"""How the parity cases of MixFormer's published classes are run, and how its authors' files are read."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from opsin.core import parity
from opsin.core.published import place
from opsin.tracking.boxes import ciou, to_corners
from opsin.tracking.crops import Box, box_from_crop, box_in_crop, crop_square
from opsin.tracking.models.mixformer.network import MixFormer
from opsin.tracking.online_memory import OnlineMemory, UpdateRule

Outputs = dict[str, Any]
HEADS = {"CORNER": "opsin.CornerHead", "CORNER_UP": "opsin.PyramidCornerHead"}
DEFAULT_HEAD_DIM = 384


def _head(built: dict[str, Any], frozen: bool) -> dict[str, Any]:
    channels = built.get("HEAD_DIM", built.get("head_channel", DEFAULT_HEAD_DIM))
    return {"type": HEADS[built.get("HEAD_TYPE", "CORNER")], "channels": channels, "freeze_bn": frozen}


def _cvt(built: dict[str, Any]) -> dict[str, Any]:
    spec = built["BACKBONE"]
    return {
        "type": "opsin.MixCvT",
        "dims": spec["DIM_EMBED"],
        "depths": spec["DEPTH"],
        "num_heads": spec["NUM_HEADS"],
        "drop_path_rates": spec["DROP_PATH_RATE"],
        "patches": list(zip(spec["PATCH_SIZE"], spec["PATCH_STRIDE"], spec["PATCH_PADDING"], strict=True)),
        "mlp_ratios": spec["MLP_RATIO"],
        "qkv_bias": spec["QKV_BIAS"],
        "drop_rates": spec["DROP_RATE"],
        "kernel_sizes": spec["KERNEL_QKV"],
        "strides_q": spec["STRIDE_Q"],
        "strides_kv": spec["STRIDE_KV"],
        "paddings_q": spec["PADDING_Q"],
        "paddings_kv": spec["PADDING_KV"],
    }


def _vit(built: dict[str, Any]) -> dict[str, Any]:
    names = {"embed_dim": "dim", "depth": "depth", "num_heads": "num_heads", "patch_size": "patch_size"}
    return {"type": "opsin.MixViT"} | _sizes(built) | {n: built[k] for k, n in names.items() if k in built}


def _convmae(built: dict[str, Any]) -> dict[str, Any]:
    names = {"embed_dim": "dims", "depth": "depths", "num_heads": "num_heads", "patch_size": "patch_sizes"}
    own = {n: built[k] for k, n in names.items() if k in built}
    if "mlp_ratio" in built:
        own["mlp_ratios"] = built["mlp_ratio"]
    sizes = _sizes(built)
    sizes.pop("mlp_ratio", None)
    return {"type": "opsin.MixConvMAE"} | sizes | own


def _sizes(built: dict[str, Any]) -> dict[str, Any]:
    names = {
        "img_size_s": "search_size",
        "img_size_t": "template_size",
        "mlp_ratio": "mlp_ratio",
        "qkv_bias": "qkv_bias",
        "layer_norm_eps": "eps",
    }
    return {name: built[key] for key, name in names.items() if key in built}


def _network(case: parity.Case, backbone: dict[str, Any]) -> MixFormer:
    """The network with the case's tensors; the score head exists if the case has tensors for it."""
    built = case.built_with
    online = any(name.startswith("score_branch.") for name in case.shapes)
    # The reduced MixViT cases give the score head the backbone's number of heads; the builders C / 64.
    score = {"type": "opsin.ScoreHead", "num_heads": built.get("num_heads")} if online else None
    network = MixFormer(backbone, _head(built, built.get("HEAD_FREEZE_BN", online)), score)
    place(network, case.state_dict(), source=case.name)
    return network.eval()


@parity.adapter("mixformer", r"models/mixformer(_cvt)?/mixformer(_online)?\.py")
def _mixformer_cvt(case: parity.Case) -> Outputs:
    return _run(_network(case, _cvt(case.built_with)), case)


@parity.adapter("mixformer", r"models/mixformer_vit/mixformer(_online)?\.py")
def _mixvit(case: parity.Case) -> Outputs:
    return _run(_network(case, _vit(case.built_with)), case)


@parity.adapter("mixformer", r"models/mixformer_convmae/mixformer(_online)?\.py")
def _mixconvmae(case: parity.Case) -> Outputs:
    return _run(_network(case, _convmae(case.built_with)), case)


@torch.no_grad()
def _run(network: MixFormer, case: parity.Case) -> Outputs:
    """Joint or cached forward, whichever the inputs are for, with all that a case may pin."""
    inputs = case.inputs()
    online = inputs["online_templates"][None] if "online_templates" in inputs else inputs["online_template"]
    memory = network.remember(inputs["template"], online)
    features = network.backbone.encode_search(inputs["search"], memory)
    boxes, logits = network.look(inputs["search"], memory, inputs.get("boxes"))
    outputs = {
        "pred_boxes": boxes[:, None],
        "search_feat": features,
        "template_feat": memory.first,
        "corner_maps": network.box_head.corner_maps(features),
    }
    if logits is not None:
        outputs["pred_scores"] = torch.stack((logits, logits.sigmoid()))
    return outputs


@parity.adapter("mixformer", r"box_ops\.py ciou_loss")
def _losses(case: parity.Case) -> Outputs:
    inputs = case.inputs()
    x, y, w, h = inputs["gt"].unbind(1)
    truth = torch.stack((x, y, x + w, y + h), dim=1).clamp(0, 1)
    corners = to_corners(inputs["pred"])
    complete, iou = ciou(corners, truth)
    loss, l1 = (1 - complete).mean(), F.l1_loss(corners, truth)
    score = F.binary_cross_entropy_with_logits(inputs["score"], inputs["label"])
    sums = torch.stack((loss, l1, 2 * loss + 5 * l1, score))
    return {"ciou_each": 1 - complete, "iou_each": iou, "sums": sums}


@parity.adapter("mixformer", r"processing_utils\.py")
def _crops(case: parity.Case) -> Outputs:
    """Even boxes are cropped by the first factor and size in the case's text, odd ones by the second."""
    image = case.inputs()["image"].numpy().astype(np.uint8)
    boxes, gt = case.inputs()["boxes"].tolist(), case.inputs()["gt"].tolist()
    stated = re.findall(r"factor (\d+(?:\.\d+)?) to (\d+) px", str(case.meta.get("what", "")))
    rules = [(float(factor), int(size)) for factor, size in stated] or [(2.0, 64), (5.0, 96)]
    outputs: Outputs = {}
    factors, columns = [], []
    for k, box in enumerate(boxes):
        factor, size = rules[k % len(rules)]
        crop = crop_square(image, box, factor, size)
        outputs[f"crop{k}"] = crop.pixels
        outputs[f"gt_in_crop{k}"] = np.array(box_in_crop(gt, box, crop.resize_factor, size))
        factors.append(crop.resize_factor)
        columns.append(crop.padding.sum(0))
    return outputs | {"resize_factor": np.array(factors), "pad_columns": np.concatenate(columns)}


@parity.adapter("mixformer", r"tracker/mixformer_\w+_online\.py")
def _online_update(case: parity.Case) -> Outputs:
    """The loop with the network's outputs given; templates are the numbers of their frames."""
    inputs = case.inputs()
    stated = re.search(r"crop factor (\d+(?:\.\d+)?), (\d+) px", str(case.meta.get("what", "")))
    factor, side = (float(stated[1]), int(stated[2])) if stated else (5.0, 320)
    interval, size = int(inputs["interval"]), int(inputs["online_size"])
    memory = OnlineMemory(0, UpdateRule(size, interval, float(inputs["decay"])))
    columns = case.meta["outputs"]["memory"]["shape"][1]
    height, width = inputs["hw"].tolist()
    box: Box = tuple(inputs["init"].tolist())
    states, slots, best = [], [], []
    for prediction, logit in zip(inputs["pred"].tolist(), inputs["logit"].tolist(), strict=True):
        resize_factor = side / math.ceil(math.sqrt(box[2] * box[3]) * factor)
        box = box_from_crop(prediction, box, resize_factor, side, (height, width))
        memory.observe(1 / (1 + math.exp(-logit)), lambda: memory.frame)
        states.append(box)
        slots.append([*memory.entries, *[-1] * (columns - len(memory.entries))])
        best.append(memory.best_score)
    return {"states": np.array(states), "memory": np.array(slots), "best_score": np.array(best)}
