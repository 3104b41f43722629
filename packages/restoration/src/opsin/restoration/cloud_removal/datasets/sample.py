"""What travels beside the dates of a place through the model."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class CloudRemovalSample(BaseDataElement):
    """Metainfo `img_path` and `gt_path`; pictures are in the stored units and type.

    Attributes:
        gt_img: the cloud-free picture (C', H, W); absent in prediction.
        pred_img: what the model made of the dates (C', H, W).
        cloud_masks: cloud attention of each date (T, H, W), float32 from 0 to 1.
    """

    gt_img: Tensor
    pred_img: Tensor
    cloud_masks: Tensor
