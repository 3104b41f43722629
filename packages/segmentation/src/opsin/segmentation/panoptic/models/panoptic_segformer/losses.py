"""The training losses of Panoptic SegFormer, for any number of pictures in a process.

The authors' code computes the mask losses of one picture only; for one these are the same numbers. Masks of
all pictures of a batch are gathered first: a Dice loss looks at one mask alone, so it does not matter which
picture a mask comes from.

What a naive reading misses: the masks are never passed through a sigmoid; the soft targets of the mask losses
are resized maps; a stuff query's class 0 means present and 1, the background of a focal loss with one
channel, absent; every loss of things, boxes and classes included, counts in proportion to the share of things
among the segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.losses import DiceLoss, FocalLoss, GIoULoss, L1Loss
from mmdet.models.task_modules.assigners.match_cost import BBoxL1Cost, FocalLossCost, IoUCost
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import DecodedMasks
from opsin.segmentation.panoptic.models.panoptic_segformer.targets import Targets

TAKEN = 1e7  # the cost of a query that an earlier round has matched
DICE_COST_EPS = 0.002
STUFF_CLASS_FACTOR = 2.0

Losses = dict[str, Tensor]
Match = tuple[Tensor, Tensor]  # queries and targets that belong together


@dataclass(frozen=True)
class LocatedLayer:
    """One location layer's class logits (B, Q, things) and boxes (B, Q, 4), centre and size in 0..1."""

    cls_scores: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Shares:
    """Segment counts of a batch, averaged over processes, and what losses are multiplied by for them."""

    things: Tensor
    stuff: Tensor

    @classmethod
    def count(cls, things: int, stuff: int, like: Tensor) -> Shares:
        """From this process's counts."""
        counts = reduce_mean(like.new_tensor([things, stuff])).clamp(min=1)
        return cls(counts[0], counts[1])

    @property
    def of_things(self) -> Tensor:
        """Share of things among the segments."""
        return self.things / (self.things + self.stuff)

    @property
    def of_stuff(self) -> Tensor:
        """Share of stuff."""
        return self.stuff / (self.things + self.stuff)


class PanopticSegFormerLoss(nn.Module):
    """Matching and losses.

    Args:
        rounds: times that each thing may claim a query for the thing mask decoder, at most. The paper says
            3; the published code ends after 1.
    """

    def __init__(self, rounds: int = 1) -> None:
        super().__init__()
        self.rounds = rounds
        self.focal = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
        self.l1 = L1Loss(loss_weight=5.0)
        self.giou = GIoULoss(loss_weight=2.0)
        self.dice = DiceLoss(activate=False, eps=1e-6, loss_weight=2.0)
        self.box_costs = (BBoxL1Cost(box_format="xywh", weight=5.0), IoUCost(iou_mode="giou", weight=2.0))
        self.class_cost = FocalLossCost(weight=2.0)
        self.mask_class_cost = FocalLossCost(weight=4.0)  # doubled in the authors' constructor
        self.mask_cost_weight = 2.0

    @torch.no_grad()
    def match(self, layer: LocatedLayer, targets: Sequence[Targets]) -> list[list[Match]]:
        """For each picture the rounds of matching location queries to things."""
        found = []
        for cls_scores, boxes, target in zip(layer.cls_scores, layer.boxes, targets, strict=True):
            cost = self._cost(cls_scores, boxes, target, self.class_cost)
            found.append(assign_in_rounds(cost, self.rounds))
        return found

    @torch.no_grad()
    def match_masks(
        self, cls_scores: Tensor, boxes: Tensor, masks: Tensor, target: Targets
    ) -> tuple[Tensor, Tensor]:
        """Matches one picture's mask queries to its things, by their masks too.

        Args:
            cls_scores: (N, things) of the queries.
            boxes: (N, 4).
            masks: (N, h, w) of the tail.
            target: the picture's.
        """
        cost = self._cost(cls_scores, boxes, target, self.mask_class_cost)
        wanted = _resized(target.masks, masks.shape[-2:])
        cost = cost + self.mask_cost_weight * dice_cost(masks.flatten(1).float(), wanted.flatten(1))
        return assign(cost)

    def _cost(self, cls_scores: Tensor, boxes: Tensor, target: Targets, class_cost: FocalLossCost) -> Tensor:
        corners = bbox_cxcywh_to_xyxy(boxes.float()) * target.size
        predicted = InstanceData(scores=cls_scores.float(), bboxes=corners)
        wanted = InstanceData(labels=target.labels, bboxes=target.boxes)
        meta = {"img_shape": target.img_shape}
        costs = [cost(predicted, wanted, meta) for cost in (class_cost, *self.box_costs)]
        return torch.stack(costs).sum(0)

    def located(
        self, layer: LocatedLayer, matches: Sequence[Match], targets: Sequence[Targets], shares: Shares
    ) -> Losses:
        """Class, L1 and GIoU loss of one location layer."""
        count = reduce_mean(layer.boxes.new_tensor(float(sum(len(rows) for rows, _ in matches)))).clamp(min=1)
        labels = torch.full(layer.cls_scores.shape[:2], layer.cls_scores.shape[-1], device=count.device)
        boxes, wanted, sizes = [], [], []
        for image, ((rows, columns), target) in enumerate(zip(matches, targets, strict=True)):
            labels[image, rows] = target.labels[columns]
            boxes.append(layer.boxes[image, rows].float())
            wanted.append(target.boxes[columns])
            sizes.append(target.size.expand(len(rows), -1))
        box, corners, size = torch.cat(boxes), torch.cat(wanted), torch.cat(sizes)
        logits = layer.cls_scores.flatten(0, 1).float()
        losses = {
            "loss_cls": self.focal(logits, labels.flatten(), avg_factor=count),
            "loss_bbox": self.l1(box, bbox_xyxy_to_cxcywh(corners / size), avg_factor=count),
            "loss_iou": self.giou(bbox_cxcywh_to_xyxy(box) * size, corners, avg_factor=count),
        }
        return {name: loss * shares.of_things for name, loss in losses.items()}

    def thing_masks(
        self, decoded: DecodedMasks, matches: Sequence[Match], targets: Sequence[Targets], shares: Shares
    ) -> Losses:
        """Dice loss of the tail's masks and of every block's."""
        wanted = torch.cat([t.masks[columns] for (_, columns), t in zip(matches, targets, strict=True)])
        count = reduce_mean(wanted.new_tensor(float(len(wanted)))).clamp(min=1)
        rows = [rows for rows, _ in matches]
        return {
            name: self._dice(masks, rows, wanted, count) * shares.of_things
            for name, masks in _named(decoded, "loss_mask_things")
        }

    def stuff(
        self, decoded: DecodedMasks, cls_scores: Sequence[Tensor], targets: Sequence[Targets], shares: Shares
    ) -> Losses:
        """Dice loss of the masks of the stuff that is there, and each block's focal loss on what is there.

        Args:
            decoded: masks of the stuff queries, of which query k stands for stuff class k.
            cls_scores: of each block (B, stuff classes, 1), logits of being there.
            targets: of the pictures.
            shares: of things and stuff.
        """
        wanted = torch.cat([target.stuff_masks for target in targets])
        rows = [target.stuff_labels for target in targets]
        losses = {
            name: self._dice(masks, rows, wanted, shares.stuff) * shares.of_stuff
            for name, masks in _named(decoded, "loss_mask_stuff")
        }
        absent = torch.ones(cls_scores[0].shape[:2], dtype=torch.long, device=wanted.device)
        for image, labels in enumerate(rows):
            absent[image, labels] = 0
        for block, logits in enumerate(cls_scores):
            focal = self.focal(logits.flatten(0, 1).float(), absent.flatten(), avg_factor=shares.stuff)
            losses[f"d{block}.loss_cls_stuff_f"] = STUFF_CLASS_FACTOR * focal * shares.of_stuff
        return losses

    def _dice(self, masks: Tensor, rows: Sequence[Tensor], wanted: Tensor, count: Tensor) -> Tensor:
        """Dice loss of the chosen masks, at twice their size.

        Args:
            masks: (B, N, h, w).
            rows: of each picture the chosen ones.
            wanted: (K, H, W), the chosen ones' targets, picture after picture.
            count: what the sum is divided by.
        """
        chosen = torch.cat([image[row] for image, row in zip(masks, rows, strict=True)]).float()
        size = (2 * chosen.shape[-2], 2 * chosen.shape[-1])
        loss: Tensor = self.dice(_resized(chosen, size), _resized(wanted, size), avg_factor=count)
        return loss


def dice_cost(masks: Tensor, wanted: Tensor) -> Tensor:
    """(N, K): 1 minus the Dice overlap, squares in the denominator, of (N, P) and (K, P)."""
    squares = masks.square().sum(1)[:, None] + wanted.square().sum(1)
    return 1 - 2 * (masks @ wanted.T) / (squares + DICE_COST_EPS)


def assign(cost: Tensor) -> Match:
    """The cheapest one-to-one matching in costs (queries, targets).

    A diverged network gives costs that are no numbers; these count as large, so that the loss shows it.
    """
    rows, columns = linear_sum_assignment(cost.nan_to_num(TAKEN, TAKEN, -TAKEN).cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def assign_in_rounds(cost: Tensor, rounds: int) -> list[Match]:
    """Matchings of costs (queries, targets), each with the queries of those before taken out.

    There are as many rounds as asked for, or as there are queries for; at least one.
    """
    cost = cost.clone()
    queries, targets = cost.shape
    found = []
    for _ in range(max(1, min(rounds, queries // max(targets, 1)))):
        found.append(assign(cost))
        cost[found[-1][0]] = TAKEN
    return found


def _named(decoded: DecodedMasks, name: str) -> list[tuple[str, Tensor]]:
    """The masks of every block and of the tail, under the published names of their losses."""
    blocks = [(f"d{block}.{name}_f", masks) for block, masks in enumerate(decoded.block_masks)]
    return [*blocks, (name, decoded.masks)]


def _resized(masks: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(masks[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
