"""The relation in two-stage detectors: features of proposals attend to the image's key points.

The paper reports Faster R-CNN with the relation but its code has one-stage detectors only, so how the module
sits here is this package's own reading: every bin of a proposal's RoIAlign features is a query at the bin's
centre, and, as boxes and classes share their layers from there on, all kinds of key points serve both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import unpack_gt_instances
from torch import Tensor

from opsin.detection.models.relationnet2.keypoints import PointMaps
from opsin.detection.models.relationnet2.relation import KeyPoints, Place, PointRelation
from opsin.registry import MODELS


class KeyedLevels(tuple[Tensor, ...]):
    """A pyramid that carries the key points found on it."""

    maps: dict[str, PointMaps]
    keys: list[KeyPoints]


@MODELS.register_module()
class BVRRoIHead(StandardRoIHead):
    """mmdet's RoI head of Faster and Mask R-CNN; box features are strengthened by corners and centres.

    Args:
        keypoint_head: config of `KeyPointHead`; its `strides` are those of the last levels of the pyramid.
        relation: arguments of `PointRelation` (`num_heads`, `base_size`, …).
        **kwargs: those of `StandardRoIHead`.
    """

    def __init__(
        self, *, keypoint_head: Mapping[str, Any], relation: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.keypoint_head = MODELS.build({"type": "opsin.KeyPointHead", **keypoint_head})
        self.relation = PointRelation(
            self.bbox_roi_extractor.out_channels,
            num_kinds=len(self.keypoint_head.kinds),
            **dict(relation or {}),
        )

    def forward(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Network outputs without post-processing."""
        return super().forward(self._keyed(x), *args, **kwargs)

    def loss(
        self, x: Sequence[Tensor], rpn_results_list: Any, batch_data_samples: Sequence[Any]
    ) -> dict[str, Any]:
        """The stock head's losses and, with the prefix `kpt_`, those of the key points."""
        levels = self._keyed(x)
        losses: dict[str, Any] = super().loss(levels, rpn_results_list, batch_data_samples)
        instances = unpack_gt_instances(batch_data_samples)[0]
        points = self.keypoint_head.loss(levels.maps, instances)
        return losses | {f"kpt_{name}": value for name, value in points.items()}

    def predict_bbox(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Boxes of the proposals."""
        return super().predict_bbox(self._keyed(x), *args, **kwargs)

    def _keyed(self, x: Sequence[Tensor]) -> KeyedLevels:
        levels = KeyedLevels(x)
        read = levels[-len(self.keypoint_head.strides) :]
        levels.maps = self.keypoint_head(read)
        levels.keys = [self.keypoint_head.choose(maps, read) for maps in levels.maps.values()]
        return levels

    def _bbox_forward(self, x: KeyedLevels, rois: Tensor) -> dict[str, Tensor]:
        features = self.bbox_roi_extractor(x[: self.bbox_roi_extractor.num_inputs], rois)
        if self.with_shared_head:
            features = self.shared_head(features)
        logits, boxes = self.bbox_head(self.strengthen(features, rois, x.keys))
        # a mask head that shares the extractor reads plain features in testing too
        return {"cls_score": logits, "bbox_pred": boxes, "bbox_feats": features}

    def strengthen(self, features: Tensor, rois: Tensor, kinds: Sequence[KeyPoints]) -> Tensor:
        """RoI features (R, C, h, w) after they have attended to the key points of their own image."""
        refined = torch.empty_like(features)
        scale = float(self.keypoint_head.strides[0])
        for image in rois[:, 0].unique().long().tolist():
            chosen = rois[:, 0] == image
            query = features[chosen].permute(0, 2, 3, 1)[None]
            keys = [KeyPoints(*(part[image : image + 1] for part in kind)) for kind in kinds]
            place = bin_centres(rois[chosen], features.shape[-2:])
            strengthened = self.relation(query, place, keys, scale)
            refined[chosen] = strengthened[0].permute(0, 3, 1, 2).to(refined.dtype)
        return refined


def bin_centres(rois: Tensor, bins: Sequence[int]) -> Place:
    """Pixel positions of the bins (h, w) of rois (R, 5): x (1, R, 1, w) and y (1, R, h, 1)."""
    y, x = ((torch.arange(n, device=rois.device, dtype=torch.float32) + 0.5) / n for n in bins)
    left, top, right, bottom = (side[None, :, None, None].float() for side in rois[:, 1:].unbind(1))
    return Place(left + (right - left) * x, top + (bottom - top) * y[:, None])
