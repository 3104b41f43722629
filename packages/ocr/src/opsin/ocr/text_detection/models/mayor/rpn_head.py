"""The RPN for text: mmdet's, that leaves anchors centred outside the image out of its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmengine.structures import InstanceData
from torch import Tensor

from opsin.registry import MODELS


@MODELS.register_module()
class TextRPNHead(RPNHead):
    """mmdet's RPN head; anchors centred outside the image, in its padding, are neither text nor not.

    mmdet itself asks for whole anchors inside or for none; a long line's anchors reach out of the picture.
    """

    def _get_targets_single(
        self,
        flat_anchors: Tensor,
        valid_flags: Tensor,
        gt_instances: InstanceData,
        img_meta: dict[str, Any],
        gt_instances_ignore: InstanceData | None = None,
        unmap_outputs: bool = True,
    ) -> Any:
        inside = valid_flags.bool() & centred_inside(flat_anchors, img_meta["img_shape"])
        return super()._get_targets_single(
            flat_anchors, inside, gt_instances, img_meta, gt_instances_ignore, unmap_outputs
        )

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> InstanceData:
        """mmdet's, for levels of a single anchor too.

        mmdet squeezes the score of such a level (a picture of up to 64 pixels has one) to a number without
        axes and fails; the anchor is given twice here, and its NMS drops one.
        """
        single = [len(priors) == 1 for priors in mlvl_priors]

        def doubled(levels: list[Tensor], axis: int) -> list[Tensor]:
            return [
                level.repeat_interleave(2, axis) if alone else level
                for level, alone in zip(levels, single, strict=True)
            ]

        return super()._predict_by_feat_single(
            doubled(cls_score_list, -1),
            doubled(bbox_pred_list, -1),
            score_factor_list,
            doubled(mlvl_priors, 0),
            *args,
            **kwargs,
        )


def centred_inside(anchors: Tensor, size: Sequence[int]) -> Tensor:
    """Which anchors (A, 4), x1 y1 x2 y2, have their centre in an image of `size` (H, W): (A,) bool."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    limit = centres.new_tensor([size[1], size[0]])
    return ((centres >= 0) & (centres < limit)).all(1)
