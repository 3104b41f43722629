"""What travels beside a stack of candidates through the model."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class MetalensSample(BaseDataElement):
    """Metainfo `img_path`; pictures are floats from 0 to 1, (3, H, W).

    Attributes:
        gt_img: the clean picture; absent for raw ones.
        raw_img: what the sensor saw, the middles of its patches side by side.
        middle_img: the middle candidate, which is what a single Wiener filter gives.
        pred_img: what the model made of the candidates.
    """

    gt_img: Tensor
    raw_img: Tensor
    middle_img: Tensor
    pred_img: Tensor
