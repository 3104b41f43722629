"""The mask head: which instance a RoI means, and its outline.

In crowded text a RoI holds several instances. The target is the one that the sampler matched, whole: its
polygon is drawn in its own box, so the head has to say all of it even where the RoI cuts it off, and the rest
of the window is background. At test the answer is read in the final box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.ocr.text_detection.models.mayor.decoders import MASK_SIZE
from opsin.ocr.text_detection.models.mayor.outlines import outlines
from opsin.ocr.text_detection.polygons import rasterize
from opsin.registry import MODELS

TargetFrame = Literal["gt_box", "proposal"]


@MODELS.register_module()
class TextMaskHead(BaseModule):
    """Convolutions on RoI features, then a decoder; one mask (28, 28) a RoI for all classes.

    Args:
        in_channels: channels of the features.
        conv_out_channels: channels of the convolutions.
        num_convs: how many 3x3 convolutions.
        decoder: config of `MLPMaskDecoder` or `DeconvMaskDecoder`, without `in_channels`.
        target_frame: the window in which a target is drawn: the matched instance's box (MAYOR), or the
            proposal (Mask R-CNN).
        loss_dice_weight: of the Dice loss; the cross-entropy has 1.
    """

    def __init__(
        self,
        in_channels: int = 256,
        *,
        conv_out_channels: int = 256,
        num_convs: int = 4,
        decoder: Mapping[str, Any] | None = None,
        target_frame: TargetFrame = "gt_box",
        loss_dice_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if target_frame not in get_args(TargetFrame):
            raise unknown("target_frame", target_frame, get_args(TargetFrame))
        self.target_frame = target_frame
        self.loss_dice_weight = loss_dice_weight
        widths = [in_channels] + [conv_out_channels] * num_convs
        self.convs = nn.Sequential(
            *(ConvModule(width, conv_out_channels, 3, padding=1) for width in widths[:-1])
        )
        decoder = {"type": "opsin.MLPMaskDecoder", **(decoder or {}), "in_channels": widths[-1]}
        self.decoder = MODELS.build(decoder)

    def forward(self, x: Tensor) -> Tensor:
        """RoI features (R, C, 14, 14) to logits (R, 28, 28)."""
        logits: Tensor = self.decoder(self.convs(x))
        return logits

    def loss_and_target(
        self,
        mask_preds: Tensor,
        sampling_results: Sequence[Any],
        batch_gt_instances: Sequence[InstanceData],
        rcnn_train_cfg: Any,
    ) -> dict[str, Any]:
        """Losses over the positive RoIs of a batch, and their targets.

        Args:
            mask_preds: logits (R, 28, 28), in the order of the sampling results' positives.
            sampling_results: mmdet's, one an image.
            batch_gt_instances: `bboxes` and `polygons`, one an image.
            rcnn_train_cfg: not read; part of mmdet's interface.
        """
        drawn = [
            self.targets(result.pos_priors, result.pos_assigned_gt_inds, instances)
            for result, instances in zip(sampling_results, batch_gt_instances, strict=True)
        ]
        targets = torch.cat(drawn).to(mask_preds.device)
        logits = mask_preds.float()
        if not len(logits):
            nothing = logits.sum()  # 0, and keeps the head in the graph of every process
            return {"loss_mask": {"loss_mask": nothing, "loss_dice": nothing}, "mask_targets": targets}
        losses = {
            "loss_mask": F.binary_cross_entropy_with_logits(logits, targets),
            "loss_dice": self.loss_dice_weight * dice_loss(logits.sigmoid(), targets),
        }
        return {"loss_mask": losses, "mask_targets": targets}

    def targets(self, proposals: Tensor, matched: Tensor, instances: InstanceData) -> Tensor:
        """What the masks should be, (R, 28, 28) float of 0 and 1.

        Args:
            proposals: positive RoIs (R, 4).
            matched: the instance of each (R,).
            instances: `bboxes` (G, 4) and `polygons`, G arrays (N, 2).

        Raises:
            UserError: if the instances have no polygons.
        """
        if "polygons" not in instances:
            raise UserError("the mask head needs polygons", "end the pipeline with opsin.PackTextInputs")
        polygons = instances.polygons
        if self.target_frame == "gt_box":
            used, order = matched.cpu().unique(return_inverse=True)  # all RoIs of an instance have one target
            frames = instances.bboxes[used.to(matched.device)].cpu().numpy()
        else:
            used, order = matched.cpu(), torch.arange(len(matched))
            frames = proposals.cpu().numpy()
        masks = [
            rasterize(polygons[index], frame, (MASK_SIZE, MASK_SIZE))
            for index, frame in zip(used.tolist(), frames, strict=True)
        ]
        drawn = np.array(masks, np.float32).reshape(-1, MASK_SIZE, MASK_SIZE)
        return torch.from_numpy(drawn)[order]

    def predict_by_feat(
        self,
        mask_preds: Sequence[Tensor],
        results_list: list[InstanceData],
        batch_img_metas: Sequence[Mapping[str, Any]],
        rcnn_test_cfg: Mapping[str, Any],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Boxes and masks to polygons.

        Args:
            mask_preds: logits (R, 28, 28) of each image.
            results_list: `bboxes`, `scores` and `labels` of each image, in pixels of the network's input.
            batch_img_metas: `img_shape`, and for `rescale` `ori_shape` and `scale_factor`.
            rcnn_test_cfg: `mask_thr_binary`, `mask_nms_iou` and `rectangles`.
            rescale: give polygons and boxes in pixels of the original image.

        Returns:
            For each image what stays of its results, surest first, with `polygons`, a list of (N, 2).
        """
        return [
            self._polygons(logits, found, meta, rcnn_test_cfg, rescale)
            for logits, found, meta in zip(mask_preds, results_list, batch_img_metas, strict=True)
        ]

    @staticmethod
    def _polygons(
        logits: Tensor, found: InstanceData, meta: Mapping[str, Any], cfg: Mapping[str, Any], rescale: bool
    ) -> InstanceData:
        if rescale:
            found.bboxes = found.bboxes / found.bboxes.new_tensor(meta["scale_factor"]).repeat(2)
        order = found.scores.argsort(descending=True, stable=True)
        found, logits = found[order], logits[order]
        kept, polygons = outlines(
            logits.float().sigmoid().cpu().numpy(),
            found.bboxes.float().cpu().numpy(),
            meta["ori_shape" if rescale else "img_shape"][:2],
            threshold=cfg["mask_thr_binary"],
            nms_iou=cfg["mask_nms_iou"],
            rectangles=cfg["rectangles"],
        )
        found = found[torch.tensor(kept, dtype=torch.long, device=found.scores.device)]
        found.polygons = polygons
        return found


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(pg) + 1) / (sum(p) + sum(g) + 1) of each mask (R, H, W), the mean over the masks."""
    shared = (probabilities * targets).sum((1, 2))
    total = probabilities.sum((1, 2)) + targets.sum((1, 2))
    return (1 - (2 * shared + 1) / (total + 1)).mean()
