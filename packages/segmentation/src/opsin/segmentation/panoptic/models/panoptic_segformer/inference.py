"""From the heads' raw values to one picture's panoptic map and instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from opsin.segmentation.panoptic.merging import MaskwiseMerging, binarise

Size = tuple[int, int]


@dataclass(frozen=True)
class Raw:
    """What the network says of one picture.

    Args:
        scores: (k,) of the kept pairs of query and class, best first.
        labels: (k,) their classes.
        boxes: (k, 4) their boxes, centre and size in 0..1.
        thing_masks: (k, h, w), not negative.
        stuff_scores: (stuff classes,) in 0..1.
        stuff_masks: (stuff classes, h, w).
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    thing_masks: Tensor
    stuff_scores: Tensor
    stuff_masks: Tensor


@dataclass(frozen=True)
class Inference:
    """How raw values become results.

    Args:
        num_things: thing classes; stuff classes are numbered after them.
        max_per_img: pairs of query and class that are kept; a query may appear twice.
        mask_threshold: a pixel above it belongs to a mask.
        semantic: a map of classes is the result, instead of panoptic map and instances.
        merging: the mask-wise merging.
    """

    num_things: int
    max_per_img: int = 100
    mask_threshold: float = 0.5
    semantic: bool = False
    merging: MaskwiseMerging = field(default_factory=MaskwiseMerging)

    @classmethod
    def of(cls, num_things: int, cfg: Mapping[str, Any] | None) -> Inference:
        """From a `test_cfg`, whose `merging` holds the settings of `MaskwiseMerging`."""
        settings = dict(cfg or {})
        merging = MaskwiseMerging(**settings.pop("merging", {}))
        return cls(num_things, merging=merging, **settings)

    def best_pairs(self, cls_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, labels and query numbers (B, k) of the best pairs in class logits (B, Q, classes)."""
        flat = cls_scores.sigmoid().flatten(1)
        scores, places = flat.topk(min(self.max_per_img, flat.shape[1]))
        things = max(1, self.num_things)
        return scores, places % things, places // things

    def results(
        self, raw: Raw, meta: Mapping[str, Any], *, rescale: bool = True
    ) -> dict[str, BaseDataElement]:
        """One picture's results under the names that they have in a data sample; arguments of `__call__`."""
        if self.semantic:
            return {"pred_sem_seg": PixelData(data=self.classes(raw, meta, rescale=rescale)[None])}
        panoptic, instances = self(raw, meta, rescale=rescale)
        return {"pred_panoptic_seg": panoptic, "pred_instances": instances}

    def classes(self, raw: Raw, meta: Mapping[str, Any], *, rescale: bool = True) -> Tensor:
        """The class of every pixel, (H, W): that of the highest score times soft mask, which is cut at 1.

        The best mask of a class counts, not their sum as in MaskFormer: a query may be among the kept pairs
        many times with low scores.
        """
        masks = torch.cat([raw.thing_masks, raw.stuff_masks]).float().clamp(max=1)
        scores = torch.cat([raw.scores, raw.stuff_scores]).float()
        stuff = torch.arange(len(raw.stuff_scores), device=raw.labels.device)
        labels = torch.cat([raw.labels, self.num_things + stuff])
        values = masks.new_zeros(self.num_things + len(stuff), *masks.shape[1:])
        owners = labels[:, None, None].expand_as(masks)
        best = values.scatter_reduce(0, owners, scores[:, None, None] * masks, "amax")
        return resizer(meta, rescale=rescale)(best).argmax(0)

    def __call__(
        self, raw: Raw, meta: Mapping[str, Any], *, rescale: bool = True
    ) -> tuple[PixelData, InstanceData]:
        """The panoptic map, and the things in the order of their fused scores.

        Args:
            raw: of one picture.
            meta: `img_shape`, `ori_shape`, `scale_factor` and `batch_input_shape` of the picture.
            rescale: to the original size; otherwise to that of the picture as the network got it.
        """
        count, stuff = len(raw.scores), len(raw.stuff_scores)
        soft = torch.cat([raw.thing_masks, raw.stuff_masks]).float()
        binary = binarise(soft, resizer(meta, rescale=rescale), self.mask_threshold)
        scores = torch.cat([raw.scores, raw.stuff_scores]).float() * binary.confidence**2
        labels = torch.cat([raw.labels, self.num_things + torch.arange(stuff, device=raw.labels.device)])
        panoptic = self.merging(binary.masks, scores, labels, self.num_things, self.num_things + stuff)
        order = scores[:count].argsort(descending=True, stable=True)
        instances = InstanceData(
            bboxes=to_pixels(raw.boxes.float(), meta, rescale=rescale)[order],
            scores=scores[order],
            labels=raw.labels[order],
            masks=binary.masks[order],
        )
        return PixelData(sem_seg=panoptic[None]), instances


def to_pixels(boxes: Tensor, meta: Mapping[str, Any], *, rescale: bool) -> Tensor:
    """Boxes (k, 4), centre and size in 0..1 of the picture, to corners in pixels, clipped to the picture."""
    height, width = meta["img_shape"][:2]
    size = boxes.new_tensor([width, height, width, height])
    corners = (bbox_cxcywh_to_xyxy(boxes) * size).clamp(min=0).minimum(size)
    return corners / corners.new_tensor(meta["scale_factor"]).repeat(2) if rescale else corners


def resizer(meta: Mapping[str, Any], *, rescale: bool) -> Callable[[Tensor], Tensor]:
    """Soft masks (n, h, w) of the padded batch to (n, H, W) of one picture.

    A picture without padding is resized in one step, as the published loaders have it; of a padded one the
    padding is cut off in between.
    """
    size = tuple(meta["ori_shape" if rescale else "img_shape"][:2])
    inside = tuple(meta["img_shape"][:2])
    batch = tuple(meta.get("batch_input_shape", inside))

    def resize(masks: Tensor) -> Tensor:
        if batch != inside:
            masks = _bilinear(masks, batch)[:, : inside[0], : inside[1]]
        return _bilinear(masks, size)

    return resize


def _bilinear(masks: Tensor, size: Size) -> Tensor:
    return F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]
