"""What travels beside the crops of a training sample, or beside a sequence in evaluation."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class TrackingSample(BaseDataElement):
    """Metainfo `img_path` (search frame, or first frame), and in evaluation `sequence`, a `VideoSequence`.

    Attributes:
        gt_box: truth in the search region, x, y, w, h over its side, (4,).
        label: whether the target is in the search region, 1.0 or 0.0, ().
        pred_boxes: x, y, w, h in pixels of every frame, (N, 4); the first is the truth that was given.
        pred_scores: of every frame, (N,); NaN without a score head.
        seconds: that each frame took, (N,).
    """

    gt_box: Tensor
    label: Tensor
    pred_boxes: Tensor
    pred_scores: Tensor
    seconds: Tensor
