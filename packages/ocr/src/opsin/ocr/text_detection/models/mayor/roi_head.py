"""The RoI head for text: mmdet's, whose second answer is polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from opsin.registry import MODELS


@MODELS.register_module()
class TextRoIHead(StandardRoIHead):
    """mmdet's RoI head of Mask R-CNN; its mask head is a `TextMaskHead`."""

    def predict_mask(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict[str, Any]],
        results_list: list[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Adds `polygons` to the boxes found, in pictures without any too; boxes without an outline go."""
        rois = bbox2roi([found.bboxes for found in results_list])
        logits = self._mask_forward(x, rois)["mask_preds"]
        return self.mask_head.predict_by_feat(
            logits.split([len(found) for found in results_list]),
            results_list,
            batch_img_metas,
            self.test_cfg,
            rescale=rescale,
        )
