"""What travels beside a picture through the model."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class CompressionSample(BaseDataElement):
    """Metainfo `img_path` and `mask_path`, and what belongs to a picture (3, H, W).

    Attributes:
        regions: region of each pixel (H, W), int64 from 0; absent where regions are a grid.
        gt_img: the picture itself, uint8 (3, H, W).
        reconstruction: what its file decodes to, (3, H, W) in [0, 1], not rounded.
        pred_img: the same as uint8.
        file: its file; absent where only an estimate was asked for.
        bits: size of its file, or the estimate.
        estimated_bits: what the likelihoods of all symbols say.
    """

    regions: Tensor
    gt_img: Tensor
    reconstruction: Tensor
    pred_img: Tensor
    file: bytes
    bits: float
    estimated_bits: float
