"""Mask2Former's losses on FrozenSeg's predictions: mmdet's code, without mmdet's head around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmengine.model import BaseModule
from torch import Tensor

from opsin.segmentation.open_vocabulary.models.frozenseg.transformer_decoder import Prediction

CLASS, MASK, DICE = 2.0, 5.0, 5.0  # weights, of the matching's costs as of the losses
NO_OBJECT = 0.1


class MaskCriterion(Mask2FormerHead):
    """Matches queries with objects and compares them, for every prediction.

    Args:
        num_things: thing classes, which come first.
        num_stuff: stuff classes.
        num_queries: Q.
        num_points: places of the masks that matching and losses look at.
        oversample_ratio: places drawn for each that is kept.
        importance_sample_ratio: share of the places where the mask is most uncertain.
    """

    def __init__(
        self,
        num_things: int,
        num_stuff: int,
        num_queries: int,
        *,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ) -> None:
        BaseModule.__init__(self)  # the head's own would build a network
        self.num_things_classes, self.num_stuff_classes = num_things, num_stuff
        self.num_classes = num_things + num_stuff
        self.num_queries, self.num_points = num_queries, num_points
        self.oversample_ratio, self.importance_sample_ratio = oversample_ratio, importance_sample_ratio
        costs = [
            dict(type="mmdet.ClassificationCost", weight=CLASS),
            dict(type="mmdet.CrossEntropyLossCost", weight=MASK, use_sigmoid=True),
            dict(type="mmdet.DiceCost", weight=DICE, pred_act=True, eps=1.0),
        ]
        self.assigner = TASK_UTILS.build(dict(type="mmdet.HungarianAssigner", match_costs=costs))
        self.sampler = TASK_UTILS.build(dict(type="mmdet.MaskPseudoSampler"))
        self.class_weight = [1.0] * self.num_classes + [NO_OBJECT]
        self.loss_cls = _loss("CrossEntropyLoss", CLASS, class_weight=self.class_weight)
        self.loss_mask = _loss("CrossEntropyLoss", MASK, use_sigmoid=True)
        self.loss_dice = _loss("DiceLoss", DICE, use_sigmoid=True, activate=True, naive_dice=True, eps=1.0)

    def __call__(self, predictions: Sequence[Prediction], samples: SampleList) -> dict[str, Tensor]:
        """Class, mask and dice loss of every prediction: `d0.…` the initial queries', the last bare.

        Args:
            predictions: as `FrozenSegHead` gives them, against all classes.
            samples: with `gt_instances` (labels, masks) and `gt_sem_seg`, padded as the batch is.
        """
        targets = self.preprocess_gt(
            [sample.gt_instances for sample in samples], [sample.gt_sem_seg for sample in samples]
        )
        losses: dict[str, Tensor] = self.loss_by_feat(
            torch.stack([p.logits for p in predictions]).float(),
            torch.stack([p.masks for p in predictions]).float(),
            targets,
            [sample.metainfo for sample in samples],
        )
        return losses


def _loss(kind: str, weight: float, **settings: Any) -> Any:
    return MODELS.build(dict(type=f"mmdet.{kind}", loss_weight=weight, reduction="mean", **settings))
