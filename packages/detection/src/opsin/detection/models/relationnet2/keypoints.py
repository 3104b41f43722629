"""Key points of an image: a heat map and offsets for corners and centres, the choice of a few, their loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.detection.models.relationnet2.relation import KeyPoints, Place
from opsin.detection.models.relationnet2.targets import MIN_OVERLAP, PointTargets, point_targets
from opsin.registry import MODELS

KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "top_left_corner": lambda boxes: boxes[:, :2],
    "bottom_right_corner": lambda boxes: boxes[:, 2:],
    "center": lambda boxes: (boxes[:, :2] + boxes[:, 2:]) / 2,
}
"""Where each kind of key point is in boxes (G, 4)."""

PRIOR = 0.01
"""Score of every class at every place before training."""


class PointMaps(NamedTuple):
    """One kind's maps, an entry a level: `logits` (N, classes, H, W), `offsets` (N, 2, H, W) in strides."""

    logits: list[Tensor]
    offsets: list[Tensor]


def grid_place(size: Sequence[int], stride: int, like: Tensor) -> Place:
    """The pixel centres of a map's cells, `size` (H, W): x (1, 1, W) and y (1, H, 1)."""
    y, x = (
        torch.arange(side, device=like.device, dtype=torch.float32) * stride + stride // 2 for side in size
    )
    return Place(x[None, None], y[None, :, None])


def grid_points(size: Sequence[int], stride: int, like: Tensor) -> Tensor:
    """The same as a list (H * W, 2) of x and y, row by row."""
    x, y = torch.broadcast_tensors(*grid_place(size, stride, like))
    return torch.stack((x.flatten(), y.flatten()), 1)


@MODELS.register_module()
class KeyPointHead(BaseModule):
    """Finds corners and centres of objects on every level of a feature pyramid; levels share the weights.

    Args:
        num_classes: classes.
        in_channels: channels of the pyramid.
        strides: stride of each level.
        feat_channels: channels inside.
        stacked_convs: convolutions before the two branches.
        logits_convs: convolutions in each branch before its last one.
        kinds: which key points.
        keys_per_level: most key points of a kind that a level gives.
        num_keys: most key points of a kind in an image.
        min_overlap: IoU that sets the width of the targets' Gaussians.
        norm_cfg: norm of the convolutions; None for a bias instead.
        loss_heatmap: loss of heat maps.
        loss_offset: loss of offsets.

    Raises:
        UserError: for an unknown kind.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        feat_channels: int = 256,
        stacked_convs: int = 2,
        logits_convs: int = 1,
        kinds: Sequence[str] = tuple(KINDS),
        keys_per_level: int = 20,
        num_keys: int = 50,
        min_overlap: float = MIN_OVERLAP,
        norm_cfg: Mapping[str, Any] | None = None,
        loss_heatmap: Mapping[str, Any] | None = None,
        loss_offset: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for kind in kinds:
            if kind not in KINDS:
                raise unknown("kind of key point", kind, KINDS)
        self.num_classes, self.strides, self.kinds = num_classes, tuple(strides), tuple(kinds)
        self.keys_per_level, self.num_keys, self.min_overlap = keys_per_level, num_keys, min_overlap
        norm = None if norm_cfg is None else dict(norm_cfg)

        def convs(channels: int, count: int) -> list[nn.Module]:
            widths = [channels, *[feat_channels] * count]
            return [ConvModule(a, feat_channels, 3, padding=1, norm_cfg=norm) for a in widths[:count]]

        def branch(outputs: int) -> nn.Sequential:
            last = nn.Conv2d(feat_channels, outputs, 3, padding=1)
            return nn.Sequential(*convs(feat_channels, logits_convs), last)

        stacks = {kind: nn.Sequential(*convs(in_channels, stacked_convs)) for kind in kinds}
        self.keypoint_layers = nn.ModuleDict(stacks)
        self.keypoint_cls_heads = nn.ModuleDict({kind: branch(num_classes) for kind in kinds})
        self.keypoint_offset_heads = nn.ModuleDict({kind: branch(2) for kind in kinds})
        self.loss_heatmap = MMDET_MODELS.build(
            loss_heatmap or {"type": "mmdet.GaussianFocalLoss", "loss_weight": 0.25}
        )
        self.loss_offset = MMDET_MODELS.build(loss_offset or {"type": "mmdet.SmoothL1Loss", "beta": 1.0})
        self._begin()

    def _begin(self) -> None:
        """Small weights, and heat maps that begin where rare objects are."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for branch in self.keypoint_cls_heads.values():
            last = cast(nn.Conv2d, cast(nn.Sequential, branch)[-1])
            nn.init.constant_(cast(Tensor, last.bias), -math.log((1 - PRIOR) / PRIOR))

    def forward(self, levels: Sequence[Tensor]) -> dict[str, PointMaps]:
        """The maps of every kind from a pyramid of (N, C, H, W).

        Raises:
            UserError: if there are not as many levels as strides.
        """
        if len(levels) != len(self.strides):
            raise UserError(
                f"the key-point head has {len(self.strides)} strides but gets {len(levels)} levels",
                "give it one stride a level",
            )
        return {kind: self._kind(kind, levels) for kind in self.kinds}

    def _kind(self, kind: str, levels: Sequence[Tensor]) -> PointMaps:
        features = [self.keypoint_layers[kind](level) for level in levels]
        return PointMaps(
            [self.keypoint_cls_heads[kind](level) for level in features],
            [self.keypoint_offset_heads[kind](level) for level in features],
        )

    def choose(self, maps: PointMaps, features: Sequence[Tensor]) -> KeyPoints:
        """The surest key points of one kind over all levels.

        Of each level the surest local maxima are taken, a place once for every class; of all levels together
        the surest `num_keys`. Positions carry the gradient of the offsets; the choice has none.

        Args:
            maps: of this kind.
            features: (N, C, H, W) a level, read at the key points' cells.
        """
        scores, positions, gathered = [], [], []
        for logits, offsets, level, stride in zip(*maps, features, self.strides, strict=True):
            best, cell = self.best(local_maxima(logits.detach().sigmoid()), self.keys_per_level)
            grid = grid_points(logits.shape[-2:], stride, logits)[cell]
            scores.append(best)
            positions.append(grid + _at(offsets, cell).float() * stride)
            gathered.append(_at(level, cell))
        all_scores = torch.cat(scores, 1)
        chosen = all_scores.topk(min(self.num_keys, all_scores.shape[1])).indices[..., None]
        return KeyPoints(
            torch.cat(gathered, 1).take_along_dim(chosen, 1),
            torch.cat(positions, 1).take_along_dim(chosen, 1),
        )

    @staticmethod
    def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest of (N, classes, H, W), or one a cell: scores and cells (N, count)."""
        cells = scores.shape[-2] * scores.shape[-1]
        top, place = scores.flatten(1).topk(min(count, cells))
        return top, place % cells

    def loss(self, maps: Mapping[str, PointMaps], instances: Sequence[InstanceData]) -> dict[str, Tensor]:
        """The losses of heat maps and offsets, each over the positives of all kinds and images.

        Args:
            maps: what `forward` gave.
            instances: `bboxes` (G, 4) and `labels` (G,) of each image.
        """
        points = [
            grid_points(level.shape[-2:], stride, level)
            for level, stride in zip(maps[self.kinds[0]].logits, self.strides, strict=True)
        ]
        targets = [self._targets(kind, points, objects) for kind in self.kinds for objects in instances]
        wanted = PointTargets(*(torch.cat(parts) for parts in zip(*targets, strict=True)))
        logits = torch.cat([_flat(maps[kind].logits) for kind in self.kinds]).float()
        offsets = torch.cat([_flat(maps[kind].offsets) for kind in self.kinds]).float()
        count = reduce_mean(wanted.positive.sum().float()).clamp(min=1).item()
        weight = wanted.positive[:, None].float().expand_as(offsets)
        return {
            "loss_heatmap": self.loss_heatmap(logits.sigmoid(), wanted.scores, avg_factor=count),
            "loss_offset": self.loss_offset(offsets, wanted.offsets, weight=weight, avg_factor=count),
        }

    def _targets(self, kind: str, points: Sequence[Tensor], objects: InstanceData) -> PointTargets:
        boxes = torch.as_tensor(getattr(objects.bboxes, "tensor", objects.bboxes)).float()
        return point_targets(
            points,
            self.strides,
            KINDS[kind](boxes),
            boxes,
            objects.labels,
            self.num_classes,
            self.min_overlap,
        )


def local_maxima(scores: Tensor) -> Tensor:
    """`scores` (N, C, H, W), 0 where a neighbour is larger; equal neighbours all stay."""
    return scores * (F.max_pool2d(scores, 3, stride=1, padding=1) == scores)


def _at(level: Tensor, cell: Tensor) -> Tensor:
    """`level` (N, C, H, W) at `cell` (N, K), indices row by row: (N, K, C)."""
    return level.flatten(2).transpose(1, 2).take_along_dim(cell[..., None], 1)


def _flat(levels: Sequence[Tensor]) -> Tensor:
    """Maps (N, C, H, W) of every level as (N * points of all levels, C), image by image."""
    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2).flatten(0, 1)
