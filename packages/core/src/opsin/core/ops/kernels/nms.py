"""Greedy suppression on the CPU: plain loops whose inner one is vector code.

No fast-math here: the comparison with the threshold has to round as the definition does, or other boxes are
kept.
"""

from __future__ import annotations

import numpy as np

from opsin.core.ops.kernels import Array, compiled


@compiled
def suppress(
    x1: Array,
    y1: Array,
    x2: Array,
    y2: Array,
    rank: Array,
    place: Array,
    threshold: float,
    offset: float,
    prune: bool,
    by: Array,
) -> None:
    """Which box suppresses each, if any: that of the best score whose IoU with it is above `threshold`.

    Boxes come sorted by their left edge, so those that can overlap a given one lie together.

    Args:
        x1: (N,) left edges, ascending; y1, x2, y2 likewise in that order.
        y1: see x1.
        x2: see x1.
        y2: see x1.
        rank: (N,) int32, each box's place in the order of scores, best first.
        place: (N,) int64, the box at each rank.
        threshold: of the boxes' dtype, as is offset.
        offset: added to every width and height (0 or 1).
        prune: skip boxes that can't overlap; only right if the threshold is not negative and no edge is NaN.
        by: (N,) int32, written: rank of the suppressing box, or -1.
    """
    count = x1.shape[0]
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    reach = x2.copy()  # the furthest right edge so far
    for j in range(1, count):
        if reach[j - 1] > reach[j]:
            reach[j] = reach[j - 1]
    zero = x1.dtype.type(0)
    by[:] = -1
    for r in range(count):
        i = place[r]
        if by[i] >= 0:
            continue
        left, top, right, bottom, area = x1[i], y1[i], x2[i], y2[i], areas[i]
        low, high = 0, count
        if prune:
            low = np.searchsorted(reach, left - offset)
            high = np.searchsorted(x1, right + offset, side="right")
        lefts, tops, rights, bottoms = x1[low:high], y1[low:high], x2[low:high], y2[low:high]
        others, ranks, marks = areas[low:high], rank[low:high], by[low:high]
        for j in range(high - low):
            width = (
                (right if right < rights[j] else rights[j]) - (left if left > lefts[j] else lefts[j]) + offset
            )
            height = (
                (bottom if bottom < bottoms[j] else bottoms[j]) - (top if top > tops[j] else tops[j]) + offset
            )
            inter = (width if width > zero else zero) * (height if height > zero else zero)
            hit = (inter / (area + others[j] - inter) > threshold) & (ranks[j] > r) & (marks[j] < 0)
            marks[j] = np.int32(r) if hit else marks[j]


@compiled
def soften(
    boxes: Array,
    scores: Array,
    method: int,
    threshold: float,
    sigma: float,
    min_score: float,
    offset: float,
    dets: Array,
    order: Array,
) -> int:
    """Soft-NMS: picks the best remaining box again and again and lowers the scores of those that overlap it.

    Args:
        boxes: (N, 4).
        scores: (N,), overwritten.
        method: 0 naive, 1 linear, 2 gaussian.
        threshold: IoU from which the naive and linear methods act.
        sigma: width of the gaussian.
        min_score: boxes whose decayed score is below it are dropped.
        offset: added to every width and height.
        dets: (N, 5), written in picking order.
        order: (N,) int64, written: index of each picked box.

    Returns:
        How many boxes were picked.
    """
    left = np.arange(boxes.shape[0])
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    zero, one = boxes.dtype.type(0), boxes.dtype.type(1)
    remaining, picked = boxes.shape[0], 0
    while picked < remaining:
        best = picked
        for position in range(picked + 1, remaining):
            if scores[left[position]] > scores[left[best]]:
                best = position
        i = left[best]
        left[best] = left[picked]
        left[picked] = i
        dets[picked, :4] = boxes[i]
        dets[picked, 4] = scores[i]
        order[picked] = i
        picked += 1
        position = picked
        while position < remaining:
            j = left[position]
            width = max(zero, min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) + offset)
            height = max(zero, min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) + offset)
            inter = width * height
            iou = inter / (areas[i] + areas[j] - inter)
            if method == 2:
                scores[j] *= np.exp(-(iou * iou) / sigma)
            elif iou >= threshold:
                scores[j] *= one - iou if method == 1 else zero
            if scores[j] < min_score:
                remaining -= 1
                left[position] = left[remaining]
            else:
                position += 1
    return picked
