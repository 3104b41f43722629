"""What travels beside an LR picture through the model."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class SuperResolutionSample(BaseDataElement):
    """Metainfo `img_path` and `gt_path`, and pictures (3, scale·H, scale·W) of uint8 or uint16.

    Attributes:
        gt_img: the HR picture; absent in prediction.
        sharp_img: the HR picture after unsharp masking, the target where present.
        pred_img: what the model made of the LR picture.
    """

    gt_img: Tensor
    sharp_img: Tensor
    pred_img: Tensor
