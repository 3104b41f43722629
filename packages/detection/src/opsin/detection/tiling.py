"""Detection in pictures larger than those of the training: the results of overlapping tiles are merged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import Tensor

from opsin.core.engine.tiled import Tile

CONTAINED = 0.8
"""A box of which this share lies in a surer one of its class is a piece of it, cut off by a tile's border."""


def merge(
    found: Sequence[tuple[Tile, InstanceData]],
    size: Sequence[int],
    *,
    iou: float = 0.5,
    most: int = 100,
) -> InstanceData:
    """The results of tiles as those of the whole picture.

    Of boxes of one class that overlap by `iou` the surest stays (non-maximum suppression), and so does of a
    box and a piece of it that another tile has cut off.

    Args:
        found: each tile's place and its `bboxes` (N, 4), `scores`, `labels` and perhaps `masks` (N, h, w).
        size: height and width of the picture.
        iou: overlap from which boxes are one object's.
        most: how many are kept at most.
    """
    shifts = [result.bboxes.new_tensor([columns.start, rows.start] * 2) for (rows, columns), result in found]
    boxes = torch.cat([result.bboxes + shift for (_, result), shift in zip(found, shifts, strict=True)])
    scores = torch.cat([result.scores for _, result in found])
    labels = torch.cat([result.labels for _, result in found])
    kept = torch.arange(len(boxes))
    if len(boxes):
        kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": iou})[1]  # surest first
        kept = kept[~_pieces(boxes[kept], labels[kept])][:most]
    merged = InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=labels[kept])
    if "masks" in found[0][1]:
        merged.masks = _masks(found, kept.tolist(), size)
    return merged


def _masks(found: Sequence[tuple[Tile, InstanceData]], kept: Sequence[int], size: Sequence[int]) -> Tensor:
    """The masks (K, H, W) of the instances `kept`, counted over all tiles."""
    owners = [(place, result, i) for place, result in found for i in range(len(result))]
    whole = torch.zeros(len(kept), *size, dtype=torch.bool)
    for row, index in enumerate(kept):
        place, result, i = owners[index]
        whole[row][place] = torch.as_tensor(result.masks[i]).bool()
    return whole


def _pieces(boxes: Tensor, labels: Tensor) -> Tensor:
    """Which boxes (N, 4), surest first, lie mostly inside an earlier one of their class: (N,) bool."""
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (end - corner).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1e-6)
    inside = (shared / area[:, None] > CONTAINED) & (labels[:, None] == labels[None])
    return inside.tril(-1).any(1)
