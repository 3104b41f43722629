"""From the features of a RoI to its mask: MAYOR's perceptron, and Mask R-CNN's deconvolution to compare with.

A decoder takes (R, C, 14, 14) and gives logits (R, 28, 28), one map for all classes.
"""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS

MASK_SIZE = 28
"""Rows and columns of a mask."""


@MODELS.register_module()
class MLPMaskDecoder(BaseModule):
    """A perceptron over the whole RoI: every pixel of the mask depends on every position.

    A 1x1 convolution reduces the channels, what is left is flattened channel by channel, and two linear
    layers give the mask row by row. The linear layers fix the size of the RoI.

    Args:
        in_channels: channels of the features.
        reduce_channels: channels that are flattened.
        hidden: width of the hidden layer.
        roi_size: rows and columns of the features.
    """

    def __init__(
        self, in_channels: int = 256, *, reduce_channels: int = 32, hidden: int = 1024, roi_size: int = 14
    ) -> None:
        super().__init__()
        self.roi_size = roi_size
        self.reduce = nn.Conv2d(in_channels, reduce_channels, 1)
        self.hidden = nn.Linear(reduce_channels * roi_size**2, hidden)
        self.logits = nn.Linear(hidden, MASK_SIZE**2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features (R, C, 14, 14) to logits (R, 28, 28)."""
        if x.shape[-2:] != (self.roi_size, self.roi_size):
            rows, columns = x.shape[-2:]
            raise UserError(
                f"the MLP mask decoder takes RoIs of {self.roi_size}x{self.roi_size}, not {rows}x{columns}",
                "make mask_roi_extractor.roi_layer.output_size and the decoder's roi_size equal",
            )
        x = self.relu(self.reduce(x)).flatten(1)
        masks: Tensor = self.logits(self.relu(self.hidden(x)))
        return masks.unflatten(1, (MASK_SIZE, MASK_SIZE))


@MODELS.register_module()
class DeconvMaskDecoder(BaseModule):
    """Mask R-CNN's decoder: each position becomes 2x2 pixels, which depend on that position alone.

    Args:
        in_channels: channels of the features.
    """

    def __init__(self, in_channels: int = 256) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, in_channels, 2, stride=2)
        self.logits = nn.Conv2d(in_channels, 1, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features (R, C, 14, 14) to logits (R, 28, 28)."""
        masks: Tensor = self.logits(self.relu(self.upsample(x)))
        return masks.squeeze(1)
