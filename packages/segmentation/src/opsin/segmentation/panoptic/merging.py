"""Mask-wise merging: overlapping soft masks become one panoptic map (Panoptic SegFormer, arXiv 2109.03814).

Masks are taken one by one, the best first, and each claims the pixels that are still free. Where several
masks overlap, a pixel therefore goes to the better *mask*, not to the mask with the highest value there; a
mask of which too much is taken is dropped whole.

A panoptic map is mmdet's: (H, W) int32, label + 1000 · instance, where instances are counted from 1 through
all things and stuff has none; pixels that nothing claims have the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmengine.structures import PixelData
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET

CHUNK = 16  # soft masks enlarged at a time: they take 32 times the memory of the binary ones


@dataclass(frozen=True)
class BinaryMasks:
    """Soft masks cut at a threshold.

    Args:
        masks: (N, H, W) bool.
        areas: (N,) pixels of each.
        confidence: (N,) mean of the soft values inside each, counted over one pixel too many.
    """

    masks: Tensor
    areas: Tensor
    confidence: Tensor


def binarise(soft: Tensor, resize: Callable[[Tensor], Tensor], threshold: float = 0.5) -> BinaryMasks:
    """Enlarges and cuts soft masks, a few at a time.

    Args:
        soft: (N, h, w).
        resize: (n, h, w) to (n, H, W).
        threshold: a pixel above it belongs to the mask.
    """
    masks, areas, sums = [], [], []
    for few in soft.split(CHUNK):
        large = resize(few)
        inside = large > threshold
        masks.append(inside)
        areas.append(inside.sum((1, 2)))
        sums.append((large * inside).sum((1, 2)))
    area = torch.cat(areas)
    return BinaryMasks(torch.cat(masks), area, torch.cat(sums) / (area + 1))


@dataclass(frozen=True)
class MaskwiseMerging:
    """Merges masks into one map.

    Args:
        min_score_things: things that score less are dropped.
        min_score_stuff: stuff that scores less is dropped.
        max_overlap_things: a thing is dropped when more than this share of it is taken.
        max_overlap_stuff: the same of stuff.

    Raises:
        UserError: for a setting outside 0..1.
    """

    min_score_things: float = 0.25
    min_score_stuff: float = 0.25
    max_overlap_things: float = 0.4
    max_overlap_stuff: float = 0.2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"{name}={value} of the mask-wise merging", "give a share between 0 and 1")

    def __call__(self, masks: Tensor, scores: Tensor, labels: Tensor, things: int, classes: int) -> Tensor:
        """The panoptic map (H, W) int32.

        Args:
            masks: (N, H, W) bool.
            scores: (N,).
            labels: (N,); below `things` they are things.
            things: number of thing classes.
            classes: number of classes, and what pixels without a class get.
        """
        panoptic = masks.new_full(masks.shape[1:], classes, dtype=torch.int32)
        free = torch.ones_like(panoptic, dtype=torch.bool)
        areas = masks.flatten(1).sum(1).tolist()
        is_thing = labels < things
        low = torch.where(is_thing, self.min_score_things, self.min_score_stuff)
        kept = scores >= low
        order = scores.argsort(descending=True, stable=True)
        instances = 0
        for index in order[kept[order]].tolist():
            label, area = int(labels[index]), areas[index]
            limit = self.max_overlap_things if label < things else self.max_overlap_stuff
            claimed = masks[index] & free
            if area == 0 or (area - int(claimed.sum())) / area > limit:
                continue
            if label < things:
                instances += 1
                label += instances * INSTANCE_OFFSET
            panoptic[claimed] = label
            free &= ~claimed
        return panoptic


@MODELS.register_module()
class MaskwiseFusionHead(MaskFormerFusionHead):
    """Mask-wise merging for mmdet's MaskFormer and Mask2Former, in the place of their pixel-wise arg-max.

    Args:
        merging: settings of `MaskwiseMerging`.
        **kwargs: of mmdet's `MaskFormerFusionHead`.
    """

    def __init__(self, *args: Any, merging: dict[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.merging = MaskwiseMerging(**(merging or {}))

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
        """Merges one picture's masks.

        Args:
            mask_cls: (N, classes + 1) logits, the last for no object.
            mask_pred: (N, H, W) logits.
        """
        scores, labels = mask_cls.softmax(-1).max(-1)
        found = labels < self.num_classes
        binary = binarise(mask_pred[found], torch.sigmoid) if found.any() else None
        if binary is None:
            empty = mask_pred.new_full((1, *mask_pred.shape[1:]), self.num_classes, dtype=torch.int32)
            return PixelData(sem_seg=empty)
        panoptic = self.merging(
            binary.masks,
            scores[found] * binary.confidence**2,
            labels[found],
            self.num_things_classes,
            self.num_classes,
        )
        return PixelData(sem_seg=panoptic[None])
