"""Non-maximum suppression: hard, soft, matched and class by class.

Boxes are (N, 4) as x1, y1, x2, y2; scores are (N,). The hard form is Algorithm 1 of every detector since
R-CNN; the soft form is Soft-NMS (arXiv:1704.04503): instead of dropping boxes that overlap a better one it
decays their scores. What a naive reading misses: the comparison with the threshold is strict in the hard form
(IoU > t goes) and not in the soft and the matched one (IoU >= t), as in mmcv; boxes of no area have IoU NaN
with each other and stay.

Results index the given boxes. On a GPU the hard form is a Triton kernel; for the other forms (and without
Triton) the boxes are brought to the CPU, suppressed there, and the indices sent back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.core.ops import kernels, triton_kernels
from opsin.core.ops.bbox_overlaps import bbox_overlaps

METHODS = ("naive", "linear", "gaussian")


def nms_reference(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """The definition of `nms`: keep the best box, drop what overlaps it, go on with the rest."""
    keep = []
    rest = scores.argsort(descending=True, stable=True)
    while rest.numel():
        best, rest = rest[0], rest[1:]
        keep.append(best)
        overlaps = bbox_overlaps(boxes[best][None], boxes[rest], offset=offset)[0]
        rest = rest[~(overlaps > iou_threshold)]
    return torch.stack(keep) if keep else scores.new_zeros(0, dtype=torch.long)


@torch.library.custom_op("opsin::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: a box goes if its IoU with a better box that stays is above this.
        offset: 0, or 1 for integer pixel boxes, whose right and bottom edges belong to them; added to each
            width and height, that of the intersection too.

    Returns:
        (K,) int64 indices of the boxes that stay, best first; equal scores stay in their order.
    """
    if triton_kernels.enabled(boxes, scores):
        from opsin.core.ops.triton_kernels.nms import suppress

        order = scores.argsort(descending=True, stable=True)
        edges = boxes.detach().to(kernels.working_dtype(boxes.dtype))[order].T.contiguous()
        return order[suppress(edges, iou_threshold, offset)]
    if not kernels.enabled(boxes.cpu(), scores.cpu()):
        return nms_reference(boxes, scores, iou_threshold, offset)
    order, by = _suppressors(boxes.detach().cpu(), scores.detach().cpu(), iou_threshold, offset)
    return order[by < 0].to(boxes.device)


@nms.register_fake
def _nms_fake(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    return scores.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


def _suppressors(
    boxes: Tensor, scores: Tensor, threshold: float, offset: int, *, strict: bool = True
) -> tuple[Tensor, Tensor]:
    """The boxes' order by score, and for each place in that order the place that suppressed it (-1: none)."""
    from opsin.core.ops.kernels.nms import suppress

    boxes = boxes.to(kernels.working_dtype(boxes.dtype))
    order = scores.argsort(descending=True, stable=True)
    edges, place_at = boxes[order].T.contiguous(), torch.empty_like(order)
    by_left = edges[0].argsort()
    place_at[by_left] = torch.arange(len(order))
    number = kernels.array(edges).dtype.type
    limit = number(threshold) if strict else np.nextafter(number(threshold), number(-np.inf))
    prune = bool(limit >= 0) and bool(edges.isfinite().all())
    by = torch.empty(len(order), dtype=torch.int32)
    suppress(
        *kernels.array(edges[:, by_left]),
        by_left.int().numpy(),
        place_at.numpy(),
        limit,
        number(offset),
        prune,
        by.numpy(),
    )
    return order, by[place_at]


def nms_match_reference(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """The definition of `nms_match`."""
    rest = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while rest.numel():
        best, rest = rest[0], rest[1:]
        hit = bbox_overlaps(dets[best, :4][None], dets[rest, :4])[0] >= iou_threshold
        groups.append([int(best), *rest[hit].tolist()])
        rest = rest[~hit]
    return groups


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Which boxes each kept box suppressed: one list a kept box, itself first, both in order of score.

    Args:
        dets: (N, 5), boxes and scores.
        iou_threshold: IoU from which (inclusively) the box of the lower score is matched to the better one.
    """
    dets = dets.detach().cpu()
    if not kernels.enabled(dets):
        return nms_match_reference(dets, iou_threshold)
    order, by = _suppressors(dets[:, :4], dets[:, 4], iou_threshold, 0, strict=False)
    groups: dict[int, list[int]] = {}
    for place, (index, suppressor) in enumerate(zip(order.tolist(), by.tolist(), strict=True)):
        groups.setdefault(place if suppressor < 0 else suppressor, []).append(index)
    return list(groups.values())


def soft_nms_reference(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """The definition of `soft_nms`; equal scores may be picked in another order."""
    scores, keep, dets = scores.clone(), [], []
    rest = torch.arange(len(scores), device=scores.device)
    while rest.numel():
        place = scores[rest].argmax()
        best = rest[place]
        keep.append(best)
        dets.append(torch.cat([boxes[best], scores[best][None]]))
        rest = torch.cat([rest[:place], rest[place + 1 :]])
        overlaps = bbox_overlaps(boxes[best][None], boxes[rest], offset=offset)[0]
        if method == "gaussian":
            scores[rest] *= torch.exp(-(overlaps**2) / sigma)
        else:
            decayed = 1 - overlaps if method == "linear" else torch.zeros_like(overlaps)
            scores[rest] *= torch.where(overlaps >= iou_threshold, decayed, torch.ones_like(overlaps))
        rest = rest[~(scores[rest] < min_score)]
    if not keep:
        return boxes.new_zeros(0, 5), scores.new_zeros(0, dtype=torch.long)
    return torch.stack(dets), torch.stack(keep)


@torch.library.custom_op("opsin::soft_nms", mutates_args=())
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS: decays the scores of boxes that overlap a better one.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: IoU from which `linear` and `naive` act.
        sigma: width of `gaussian`.
        min_score: a box whose score has decayed below this is dropped.
        method: `linear` multiplies by 1 - IoU, `naive` by 0, `gaussian` at any IoU by exp(-IoU² / sigma).
        offset: as in `nms`.

    Returns:
        (K, 5) boxes with the score each had when picked, in the order of picking, and their (K,) indices.
    """
    if method not in METHODS:
        raise ValueError(f"soft_nms: method {method!r} is none of {', '.join(METHODS)}")
    dtype = kernels.working_dtype(boxes.dtype)
    on_cpu, lowered = boxes.detach().cpu().to(dtype), scores.detach().cpu().to(dtype, copy=True)
    if not kernels.enabled(on_cpu):
        return soft_nms_reference(boxes, scores, iou_threshold, sigma, min_score, method, offset)
    from opsin.core.ops.kernels.nms import soften

    dets, order = on_cpu.new_empty(len(on_cpu), 5), torch.empty(len(on_cpu), dtype=torch.long)
    given = kernels.array(on_cpu)
    number = given.dtype.type
    count = soften(
        given,
        kernels.array(lowered),
        METHODS.index(method),
        number(iou_threshold),
        number(sigma),
        number(min_score),
        number(offset),
        dets.numpy(),
        order.numpy(),
    )
    return dets[:count].to(boxes, copy=True), order[:count].to(boxes.device, copy=True)


@soft_nms.register_fake
def _soft_nms_fake(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, 5), scores.new_empty(count, dtype=torch.long)


Suppress = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SPLIT_FROM = 10_000  # boxes; from here labels run one by one, since the work is quadratic


def filtered_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    offset: int = 0,
    score_threshold: float = 0.0,
    max_num: int = -1,
) -> tuple[Tensor, Tensor]:
    """The best `max_num` of `nms` on the boxes whose score is above a positive `score_threshold`.

    Returns:
        (K, 5) boxes with scores, best first, and their (K,) indices.
    """
    keep = torch.arange(len(scores), device=scores.device)
    if score_threshold > 0:
        keep = torch.nonzero(scores > score_threshold).squeeze(1)
    keep = keep[nms(boxes[keep], scores[keep], iou_threshold, offset)]
    if max_num > 0:
        keep = keep[:max_num]
    return torch.cat([boxes[keep], scores[keep, None]], 1), keep


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    nms_cfg: dict[str, Any] | None,
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor]:
    """Suppression within each label: boxes of different labels are shifted apart, then suppressed together.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,) integers; boxes of different labels never suppress each other.
        nms_cfg: `type` (`nms` or `soft_nms`), that function's arguments, `max_num`, `class_agnostic`, and
            `split_thr` (10 000): from that many boxes the labels run one after another. None only sorts.
        class_agnostic: labels play no part.

    Returns:
        (K, 5) boxes with (for soft-NMS decayed) scores, best first, and their (K,) indices.
    """
    if nms_cfg is None:
        scores, keep = scores.sort(descending=True)
        return torch.cat([boxes[keep], scores[:, None]], 1), keep
    settings = dict(nms_cfg)
    kinds: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"nms": filtered_nms, "soft_nms": soft_nms}
    kind = settings.pop("type", "nms")
    if kind not in kinds:
        raise ValueError(f"batched_nms: type {kind!r} is none of {', '.join(kinds)}")
    split_from = settings.pop("split_thr", SPLIT_FROM)
    max_num = settings.pop("max_num", -1)
    shifted = boxes
    if not settings.pop("class_agnostic", class_agnostic) and boxes.numel():
        shifted = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]

    def suppress(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        return kinds[kind](boxes, scores, **settings)

    if len(boxes) < split_from:
        dets, keep = suppress(shifted, scores)
        decayed = dets[:, 4]
    else:
        decayed, keep = _label_by_label(shifted, scores, labels, suppress)
    if max_num > 0:
        decayed, keep = decayed[:max_num], keep[:max_num]
    return torch.cat([boxes[keep], decayed[:, None]], 1), keep


def _label_by_label(
    boxes: Tensor, scores: Tensor, labels: Tensor, suppress: Suppress
) -> tuple[Tensor, Tensor]:
    """The scores and indices that `suppress` leaves of each label, all labels sorted together."""
    decayed, kept = [scores.new_zeros(0)], [labels.new_zeros(0, dtype=torch.long)]
    for label in labels.unique():
        members = torch.nonzero(labels == label).squeeze(1)
        dets, keep = suppress(boxes[members], scores[members])
        decayed.append(dets[:, 4])
        kept.append(members[keep])
    indices, by_index = torch.cat(kept).sort()
    values, order = torch.cat(decayed)[by_index].sort(descending=True)
    return values, indices[order]
