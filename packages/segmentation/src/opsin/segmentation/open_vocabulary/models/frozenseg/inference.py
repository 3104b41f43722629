"""From class and mask logits to semantic, panoptic and instance results.

Letters: Q queries, N masks of SAM, C classes, H x W pixels. Class logits have C + 1 columns, void last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opsin.segmentation.open_vocabulary.models.mask_pooling import resize

LOG_FLOOR = 1e-8
KEPT_SAM_MASK = 0.5  # the least probability of an unseen class that keeps a mask of SAM


def geometric_ensemble(
    decoder: Tensor, clip: Tensor, seen: Tensor, alpha: float, beta: float, valid: Tensor | None = None
) -> Tensor:
    """Class logits (Q, C + 1) that weigh the trained decoder against the frozen CLIP.

    For a seen class log(p^(1 - alpha) q^alpha), with the probabilities p of the decoder and q of CLIP over
    the classes without void; for an unseen one with beta. The decoder alone decides about void.

    Args:
        decoder: (Q, C + 1) logits.
        clip: (Q, C + 1) logits.
        seen: (C,) bool, whether training had a class by one of its names.
        alpha: CLIP's share for seen classes.
        beta: CLIP's share for unseen classes.
        valid: (Q,) bool; CLIP has no say where this is False.
    """
    share = torch.where(seen, alpha, beta).to(decoder)
    if valid is not None:
        share = share * valid[:, None]
    mixed = (1 - share) * decoder[:, :-1].log_softmax(-1) + share * clip[:, :-1].log_softmax(-1)
    void = decoder.softmax(-1)[:, -1:]
    return (torch.cat([mixed.softmax(-1) * (1 - void), void], -1) + LOG_FLOOR).log()


def semantic_scores(logits: Tensor, masks: Tensor) -> Tensor:
    """Scores (C, H, W) from class logits (Q, C + 1) and mask logits (Q, H, W).

    The softmax is over C + 1; void is dropped after it and nothing normalised again.
    """
    return torch.einsum("qc,qhw->chw", logits.softmax(-1)[:, :-1], masks.sigmoid())


def add_sam_masks(
    scores: Tensor, sam_logits: Tensor, sam_masks: Tensor, seen: Tensor, weight: float
) -> Tensor:
    """Semantic scores (C, H, W) whose unseen classes also count SAM's own masks.

    A mask counts if its most probable unseen class has more than 0.5, void included in the softmax. Their
    sum, not their mean, has the share `weight`; the queries' scores of unseen classes keep 1 - weight.

    Args:
        scores: (C, H, W), of the queries.
        sam_logits: (N, C + 1) class logits of SAM's masks.
        sam_masks: (N, h, w) mask logits, resized to the scores.
        seen: (C,) bool.
        weight: in 0..1.
    """
    unseen = ~seen
    if not unseen.any():
        return scores
    probabilities = sam_logits.softmax(-1)[:, :-1] * unseen
    kept = probabilities.amax(-1) > KEPT_SAM_MASK
    masks = resize(sam_masks[None], scores.shape[-2:])[0][kept].sigmoid()
    proposed = torch.einsum("nc,nhw->chw", probabilities[kept], masks)
    mixed = (1 - weight) * scores + weight * proposed
    return torch.where(unseen[:, None, None], mixed, scores)


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map; `score` is that of its query, of the first one for merged stuff."""

    id: int
    label: int
    is_thing: bool
    score: float


def panoptic_segments(
    logits: Tensor,
    masks: Tensor,
    is_thing: Tensor,
    *,
    object_threshold: float = 0.0,
    overlap_threshold: float = 0.8,
) -> tuple[Tensor, list[Segment]]:
    """The panoptic map (H, W) of segment ids, 0 for none, and its segments: Mask2Former's merging.

    A pixel belongs to the query of the greatest score x mask; a query whose pixels are less than
    `overlap_threshold` of its mask is dropped; stuff of one class becomes one segment.

    Args:
        logits: (Q, C + 1) class logits.
        masks: (Q, H, W) mask logits.
        is_thing: (C,) bool.
        object_threshold: queries need more than this score.
        overlap_threshold: in 0..1.
    """
    scores, labels = logits.softmax(-1).max(-1)
    kept = (labels < len(is_thing)) & (scores > object_threshold)
    scores, labels, sigmoids = scores[kept], labels[kept], masks[kept].sigmoid()
    ids = torch.zeros(masks.shape[-2:], dtype=torch.long, device=masks.device)
    if not len(scores):
        return ids, []
    owner = (scores[:, None, None] * sigmoids).argmax(0)
    inside = sigmoids >= 0.5
    owned = owner.flatten().bincount(minlength=len(scores))
    full = inside.flatten(1).sum(1)
    visible = inside.gather(0, owner[None])[0]  # where the owner's mask holds
    segments: list[Segment] = []
    stuff: dict[int, int] = {}
    for query in range(len(scores)):
        segment = visible & (owner == query)
        if not full[query] or owned[query] / full[query] < overlap_threshold or not segment.any():
            continue
        label = int(labels[query])
        thing = bool(is_thing[label])
        if not thing and label in stuff:
            ids[segment] = stuff[label]
            continue
        segments.append(Segment(len(segments) + 1, label, thing, float(scores[query])))
        ids[segment] = len(segments)
        if not thing:
            stuff[label] = len(segments)
    return ids, segments


@dataclass(frozen=True)
class Instances:
    """Things: `scores` (N,), `labels` (N,), `masks` (N, H, W) bool; best first."""

    scores: Tensor
    labels: Tensor
    masks: Tensor


def top_instances(logits: Tensor, masks: Tensor, is_thing: Tensor, count: int = 100) -> Instances:
    """The best pairs of query and thing class; a score is class probability x mean of the mask inside.

    Args:
        logits: (Q, C + 1) class logits.
        masks: (Q, H, W) mask logits.
        is_thing: (C,) bool.
        count: pairs looked at before stuff is dropped.
    """
    probabilities = logits.softmax(-1)[:, :-1]
    scores, places = probabilities.flatten().topk(min(count, probabilities.numel()))
    queries, labels = places // len(is_thing), places % len(is_thing)
    things = is_thing[labels]
    scores, labels, masks = scores[things], labels[things], masks[queries[things]]
    inside = (masks > 0).to(masks.dtype)
    quality = (masks.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    return Instances(*_sorted(scores * quality, labels, inside.bool()))


def _sorted(scores: Tensor, labels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = scores.argsort(descending=True, stable=True)
    return scores[order], labels[order], masks[order]


def seen_classes(classes: list[tuple[str, ...]], trained: list[tuple[str, ...]]) -> Tensor:
    """(C,) bool: which classes share a name with one that training had."""
    known = {name.strip().lower() for names in trained for name in names}
    return torch.tensor(
        [any(n.strip().lower() in known for n in names) for names in classes], dtype=torch.bool
    )


def not_empty(masks: Tensor) -> Tensor:
    """(Q,) bool: which mask logits (Q, h, w) are above 0 somewhere."""
    return (masks > 0).flatten(1).any(1)
