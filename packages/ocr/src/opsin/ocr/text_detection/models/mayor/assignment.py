"""Adaptive label assignment: which anchors of the RPN stand for which text.

Text is up to thirty times as long as it is high. A fixed IoU threshold then needs anchors of many shapes;
here the threshold follows each instance's own candidates, as in ATSS (arXiv 1912.02424), and every instance
is given at least `n_min` anchors, so that one square anchor a position does.
"""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from opsin.ocr.text_detection.polygons import min_area_rectangle
from opsin.registry import TASK_UTILS

NEGATIVE, IGNORED = 0, -1  # mmdet's marks; a positive anchor has the number of its instance, from 1


@TASK_UTILS.register_module()
class AdaptiveLabelAssigner(BaseAssigner):
    """Assigns anchors to text.

    1. Candidates of an instance: on each level the `k` anchors nearest to the centre of its box.
    2. Positive are candidates whose IoU with the box reaches the mean plus the standard deviation of all its
       candidates', and whose centre lies in the smallest rectangle (at any angle) around its polygon.
    3. An anchor that several instances claim goes to the one that it overlaps most.
    4. Instances that now have fewer than `n_min`, fewest first, take free candidates of their own in order of
       IoU, then of distance, inside or not; `k` is doubled for one whose candidates run out.

    Sharing is settled before filling up: the other way round it would take anchors away again. Anchors that
    lie in a don't-care box by `ignore_iof` of their area are ignored unless they are positive.

    A level is all anchors of one area, so this takes any generator with one scale a level.

    Args:
        k: candidates on each level.
        n_min: anchors that each instance gets at least; 0 leaves step 4 out.
        ignore_iof: share of an anchor's area.
    """

    def __init__(self, k: int = 9, n_min: int = 3, ignore_iof: float = 0.5) -> None:
        self.k = k
        self.n_min = n_min
        self.ignore_iof = ignore_iof

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: object,
    ) -> AssignResult:
        """The owner of each anchor.

        Args:
            pred_instances: `priors` (A, 4), x1 y1 x2 y2, all centred in the image.
            gt_instances: `bboxes` (G, 4), `labels` (G,) and `polygons`, G arrays (N, 2); without polygons
                the boxes stand for them.
            gt_instances_ignore: `bboxes` of don't-care regions.
            **kwargs: what other assigners take.

        Returns:
            mmdet's result: `gt_inds` (A,): number of the instance from 1, 0 negative, -1 ignored.
        """
        anchors, boxes = pred_instances.priors, gt_instances.bboxes
        owners = anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.long)
        if gt_instances_ignore is not None and len(gt_instances_ignore):
            within = bbox_overlaps(anchors, gt_instances_ignore.bboxes, mode="iof").amax(1)
            owners[within >= self.ignore_iof] = IGNORED
        overlaps = anchors.new_zeros(len(anchors))
        labels = owners.new_full((len(anchors),), -1)
        if len(boxes) and len(anchors):
            claimed = self._positives(anchors, boxes, text_rectangles(gt_instances))
            positive = claimed >= 0
            owner = claimed[positive]
            owners[positive] = owner + 1
            labels[positive] = gt_instances.labels[owner]
            overlaps[positive] = bbox_overlaps(anchors[positive], boxes[owner], is_aligned=True)
        return AssignResult(len(boxes), owners, overlaps, labels)

    def _positives(self, anchors: Tensor, boxes: Tensor, rectangles: Tensor) -> Tensor:
        """The instance of each anchor (A,), counted from 0, or -1."""
        levels = anchor_levels(anchors)
        candidates = nearest_anchors(anchors, levels, boxes, self.k)  # (G, K)
        count, each = candidates.shape
        overlaps = bbox_overlaps(
            anchors[candidates.flatten()], boxes.repeat_interleave(each, 0), is_aligned=True
        ).view(count, each)
        threshold = overlaps.mean(1) + (overlaps.std(1) if each > 1 else 0)
        centres = (anchors[candidates, :2] + anchors[candidates, 2:]) / 2
        chosen = (overlaps >= threshold[:, None]) & in_rectangles(centres, rectangles)
        claims = overlaps.new_full((count, len(anchors)), -1.0)
        claims.scatter_(1, candidates, torch.where(chosen, overlaps, -1.0))
        best, claimed = claims.max(0)
        claimed[best < 0] = -1
        self._fill_up(claimed, anchors, levels, boxes)
        return claimed

    def _fill_up(self, claimed: Tensor, anchors: Tensor, levels: Tensor, boxes: Tensor) -> None:
        """Gives each instance its `n_min` anchors, in place."""
        held = torch.bincount(claimed[claimed >= 0], minlength=len(boxes))
        for instance in held.argsort(stable=True).tolist():
            missing = self.n_min - int(held[instance])
            k = self.k
            while missing > 0:
                box = boxes[instance : instance + 1]
                own = nearest_anchors(anchors, levels, box, k)[0]
                free = own[claimed[own] < 0]
                distance = centre_distances(box, anchors[free])[0]
                overlap = bbox_overlaps(anchors[free], box)[:, 0]
                order = distance.argsort(stable=True)
                order = order[overlap[order].argsort(descending=True, stable=True)]
                taken = free[order[:missing]]
                claimed[taken] = instance
                missing -= len(taken)
                if len(own) == len(anchors):
                    break  # fewer anchors than instances ask for
                k *= 2


def text_rectangles(instances: InstanceData) -> Tensor:
    """The smallest rectangles (G, 4, 2) around the polygons, or the boxes where there are none."""
    boxes = instances.bboxes
    if "polygons" not in instances:
        return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2)
    return torch.stack([boxes.new_tensor(min_area_rectangle(polygon)) for polygon in instances.polygons])


def anchor_levels(anchors: Tensor) -> Tensor:
    """The level of each anchor (A,), from 0: anchors of one level have one area."""
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt().round()
    return sides.unique(return_inverse=True)[1]


def centre_distances(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Squared distances (G, A) of the centres."""
    own, other = ((corners[:, :2] + corners[:, 2:]) / 2 for corners in (boxes, anchors))
    return (own[:, None] - other[None]).square().sum(-1)


def nearest_anchors(anchors: Tensor, levels: Tensor, boxes: Tensor, k: int) -> Tensor:
    """Each instance's `k` nearest anchors of each level (G, K), or all of a level that has fewer.

    Of equally distant anchors the first counts as nearer, which `topk` alone does not promise.
    """
    found = []
    for level in range(int(levels.max()) + 1):
        own = torch.nonzero(levels == level)[:, 0]
        count = min(k, len(own))
        distances = centre_distances(boxes, anchors[own])
        farthest = distances.topk(count, dim=1, largest=False).values[:, -1:]
        rows, columns = torch.nonzero(distances <= farthest, as_tuple=True)
        order = distances[rows, columns].argsort(stable=True)
        order = order[rows[order].argsort(stable=True)]
        rank = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
        found.append(own[columns[order][rank < count]].view(len(boxes), count))
    return torch.cat(found, 1)


def in_rectangles(points: Tensor, rectangles: Tensor) -> Tensor:
    """Which points (G, K, 2) lie in the rectangle (4, 2) of their row, its border included: (G, K) bool."""
    start = rectangles[:, None]
    side = rectangles.roll(-1, 1)[:, None] - start
    way = points[:, :, None] - start  # (G, K, 4, 2)
    turns = side[..., 0] * way[..., 1] - side[..., 1] * way[..., 0]
    return (turns >= 0).all(-1) | (turns <= 0).all(-1)
