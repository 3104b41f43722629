"""What travels beside a picture through a promptable model."""

from __future__ import annotations

from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor


class PromptSample(BaseDataElement):
    """Metainfo `img_path`, `ori_shape` and `img_shape` (H, W), and what follows.

    Attributes:
        gt_masks: (N, H, W) bool; of the resized picture in training, else of the original one.
        gt_things: (N,) bool, whether a mask is of a thing, which may be asked for by a box.
        prompts: `Prompts` in pixels of the original picture.
        asked: in training, pairs of `Prompts` in pixels of the resized picture and the rows of `gt_masks`
            that they are for.
        pred_masks: (N, H, W) bool, of the original picture.
        pred_scores: (N,) how firm the masks' borders are, see `stability`.
    """

    gt_masks: Tensor
    gt_things: Tensor
    prompts: Any
    asked: Any
    pred_masks: Tensor
    pred_scores: Tensor
