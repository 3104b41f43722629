"""Parity cases of the authors' classes: whole network, mask decoders, losses, merging."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from opsin.core.models import create_model
from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.panoptic.merging import MaskwiseMerging
from opsin.segmentation.panoptic.models.panoptic_segformer.head import PanopticSegFormerHead, finest
from opsin.segmentation.panoptic.models.panoptic_segformer.inference import Inference, Raw
from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import MaskDecoder
from opsin.segmentation.panoptic.models.panoptic_segformer.targets import Targets
from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET

SLUG = "panoptic-segformer"
Outputs = Mapping[str, Tensor]

NOT_THINGS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_THINGS = [i for i in range(1, 91) if i not in NOT_THINGS]
COCO_STUFF = [92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148]
COCO_STUFF += [
    149,
    151,
    *range(154, 157),
    159,
    161,
    166,
    168,
    171,
    *range(175, 179),
    180,
    181,
    *range(184, 201),
]

MOST_DETECTIONS = 100  # of an image, however many take part in the merging

MODELS_BY_CONFIG = {
    "r50": "panoptic_segformer_r50",
    "r101": "panoptic_segformer_r101",
    "pvt": "panoptic_segformer_pvtv2_b5",
    "swin": "panoptic_segformer_swin_l",
}


def _padding(shapes: Sequence[Sequence[int]], size: Sequence[int]) -> Tensor:
    padding = torch.ones(len(shapes), *size, dtype=torch.bool)
    for mask, (height, width) in zip(padding, shapes, strict=True):
        mask[:height, :width] = False
    return padding


@adapter(SLUG, r"panseg\.py PanSeg")
@torch.no_grad()
def _network(case: Case) -> Outputs:
    config = str(case.built_with["config"])
    name = next(name for part, name in MODELS_BY_CONFIG.items() if re.search(part, config))
    model: Any = create_model(name)
    place(model, case.state_dict(), source=case.name)
    model.eval()
    image, head = case.inputs()["img"], model.bbox_head
    maps = model.extract_feat(image)
    memory, located = head.locate(maps, _padding(case.built_with["img_shapes"], image.shape[-2:]))
    first = located.queries[-1][:, : case.built_with["first_thing_queries"]]
    things = head.decode_things(first, memory)
    stuff, logits = head.decode_stuff(memory)
    return {
        "neck0": maps[0],
        "neck3": maps[3],
        "cls_scores_first": head.cls_branches[0](located.queries[0]),
        "cls_scores_last": head.cls_branches[-1](located.queries[-1]),
        "bbox_preds_last": located.boxes[-1],
        "memory": finest(memory)[0],
        "mask_things": things.masks,
        "mask_things_d0": things.block_masks[0],
        "mask_stuff": stuff.masks,
        "stuff_scores": logits[-1].squeeze(-1).sigmoid(),
    }


@adapter(SLUG, r"mask_head\.py MaskHead")
@torch.no_grad()
def _mask_decoders(case: Case) -> Outputs:
    inputs, tensors = case.inputs(), case.state_dict()
    sizes = [(height, width) for height, width in case.built_with["hw_lvl"]]
    outputs: dict[str, Tensor] = {}
    for kind, query, position in (
        ("things", inputs.get("thing_query"), None),
        ("stuff", inputs.get("stuff_query"), inputs.get("stuff_pos")),
    ):
        if kind not in case.built_with:
            continue
        own = {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(f"{kind}.")}
        decoder = _mask_decoder(case.built_with[kind], own)
        place(decoder, own, source=case.name)
        decoded = decoder.eval()(query, inputs["memory"], sizes, position)
        outputs |= {
            f"mask_{kind}": _flat(decoded.masks),
            f"mask_{kind}_inter": _flat(torch.stack(decoded.block_masks)),
            f"query_{kind}_inter": torch.stack(decoded.block_queries),
        }
    return outputs


def _mask_decoder(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MaskDecoder:
    return MaskDecoder(
        arguments["d_model"],
        arguments["nhead"],
        arguments["num_decoder_layers"],
        hidden_dim=len(tensors["blocks.0.mlp.fc1.weight"]),
        self_attn=arguments.get("self_attn", False),
    )


def _flat(masks: Tensor) -> Tensor:
    """(…, N, H, W) to the published (…, N, H·W, 1)."""
    return masks.flatten(-2)[..., None]


@adapter(SLUG, r"PanformerHead\.loss")
@torch.no_grad()
def _losses(case: Case) -> Outputs:
    built = case.built_with
    inputs = case.inputs()
    maps = [inputs[f"feat{level}"] for level in range(len(inputs))]
    size = built["batch_input_shape"]
    names = built["loss_names_in_order"]
    head = PanopticSegFormerHead()  # one round of matching, as published
    place(head, case.state_dict(), source=case.name)
    losses = head.eval().loss_of(maps, _padding(built["img_shapes"], size), _targets(built))
    return {kind: torch.stack([losses[name] for name in of]) for kind, of in names.items()}


def _targets(built: Mapping[str, Any]) -> list[Targets]:
    """Rectangles: boxes in pixels, each mask its box; labels from 80 on are stuff."""
    targets = []
    height, width = built["batch_input_shape"]
    for shape, boxes, numbers in zip(
        built["img_shapes"], built["gt_bboxes_and_rect_masks"], built["gt_labels"], strict=True
    ):
        masks = torch.zeros(len(boxes), height, width)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        labels, corners = torch.tensor(numbers), torch.tensor(boxes, dtype=torch.float32)
        thing, stuff = labels < len(COCO_THINGS), labels >= len(COCO_THINGS)
        targets.append(
            Targets(
                labels=labels[thing],
                boxes=corners[thing],
                masks=masks[thing],
                stuff_labels=labels[stuff] - len(COCO_THINGS),
                stuff_masks=masks[stuff],
                img_shape=tuple(shape),
            )
        )
    return targets


@adapter(SLUG, r"PanformerHead\.get_bboxes")
@torch.no_grad()
def _merge(case: Case) -> Outputs:
    built, inputs = case.built_with, case.inputs()
    merging = MaskwiseMerging(
        built["quality_threshold_things"],
        built["quality_threshold_stuff"],
        built["overlap_threshold_things"],
        built["overlap_threshold_stuff"],
    )
    things = inputs["cls_logits"].shape[-1]
    inference = Inference(things, built["max_per_img"], merging=merging)
    scores, labels, rows = inference.best_pairs(inputs["cls_logits"][None])
    raw = Raw(
        scores=scores[0],
        labels=labels[0],
        boxes=inputs["boxes"][rows[0]],
        thing_masks=inputs["thing_masks"][0],
        stuff_scores=inputs["stuff_logits"].sigmoid(),
        stuff_masks=inputs["stuff_masks"][0],
    )
    shape, original = built["img_shape"], built["ori_shape"]
    meta = {
        "img_shape": shape,
        "ori_shape": original,
        "scale_factor": (shape[1] / original[1], shape[0] / original[0]),
    }
    panoptic, found = inference(raw, meta)
    found = found[:MOST_DETECTIONS]
    segments = panoptic.sem_seg[0].long()
    ids = [*COCO_THINGS[:things], *COCO_STUFF[: len(raw.stuff_scores)], 0]  # the last for pixels of nothing
    return {
        "category_id": torch.tensor(ids)[segments % INSTANCE_OFFSET],
        "instance": segments // INSTANCE_OFFSET,
        "det_bboxes": torch.cat([found.bboxes, found.scores[:, None]], 1),
        "det_labels": found.labels,
        "det_masks": found.masks.float().mean((1, 2)),
    }
