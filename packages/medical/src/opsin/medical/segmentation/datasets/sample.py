"""What travels beside a picture or volume through the model."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class SegmentationSample(BaseDataElement):
    """Metainfo `img_path`, `case`, `slice` and `spacing` (millimetres along the axes of the labels).

    Attributes:
        gt_label: classes (H, W), or (D, H, W) of a volume, uint8; of one class perhaps a soft mask, float.
        pred_label: classes of the same shape, uint8.
    """

    gt_label: Tensor
    pred_label: Tensor
