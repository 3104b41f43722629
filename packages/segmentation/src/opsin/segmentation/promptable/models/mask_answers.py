"""From a decoder's logits to masks of the original picture, and masks of everything in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops.nms import nms
from opsin.segmentation.panoptic.datasets.coco_panoptic import boxes_around

STABILITY_OFFSET = 1.0

Size = tuple[int, int]  # rows and columns


def original_logits(logits: Tensor, padded_size: Size, resized_size: Size, original_size: Size) -> Tensor:
    """Logits (N, 1, h, w) of a padded picture to those of the original one, (N, 1, H, W).

    Args:
        logits: of any stride.
        padded_size: of the network's input.
        resized_size: of the picture in it, at the upper left.
        original_size: H, W.
    """
    logits = F.interpolate(logits, padded_size, mode="bilinear", align_corners=False)
    logits = logits[..., : resized_size[0], : resized_size[1]]
    return F.interpolate(logits, original_size, mode="bilinear", align_corners=False)


def stability(logits: Tensor, offset: float = STABILITY_OFFSET) -> Tensor:
    """How little masks change with their threshold: IoU of those at +offset and -offset, (N,) in [0, 1].

    Segment Anything's measure. It stands in for the predicted IoU, which RWKV-SAM does not train. A mask of
    no pixel at the lower threshold has 0.

    Args:
        logits: (N, H, W).
        offset: in logits.
    """
    inner, outer = ((logits > bound).flatten(1).sum(1) for bound in (offset, -offset))
    return inner / outer.clamp(min=1)


def grid_points(side: int, size: Size) -> Tensor:
    """The middles of side x side equal fields of a picture of `size`, (side * side, 1, 2) as (x, y)."""
    middle = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(middle * size[0], middle * size[1], indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)[:, None] - 0.5


def distinct_masks(masks: Tensor, scores: Tensor, *, iou_threshold: float) -> Tensor:
    """Indices of masks (N, H, W) that are left when of two with like boxes the better one (N,) stays.

    In the order of their scores; empty masks go.
    """
    there = masks.flatten(1).any(1).nonzero()[:, 0]
    boxes = torch.from_numpy(boxes_around(masks[there].cpu().numpy())).to(scores.device)
    return there[nms(boxes, scores[there].float(), iou_threshold)]
