"""HAT: a hybrid attention transformer for image super-resolution and restoration.

Papers: "Activating More Pixels in Image Super-Resolution Transformer" (arXiv 2205.04437) and "HAT: Hybrid
    Attention
Transformer for Image Restoration" (arXiv 2309.05239). Published code: XPixelGroup/HAT (Apache-2.0).

Image (N, in_chans, H, W) in [0, 1] to (N, in_chans, scale·H, scale·W), not clamped. Inside, maps are
(N, H, W, C): windows cut them with one copy, and convolutions read them as channels-last tensors with none.

What differs from a naive reading:

* the convolution branch (CAB) and the attention read the normed input; the residual stream carries neither
  norm;
* CAB ends in channel attention over the average of the *whole* map, so every pixel depends on every other
  one;
* OCAB counts positions key minus query, HAB query minus key; OCAB's published index is negative in places and
  wraps around the end of its table, which is what its weights were trained with;
* keys and values outside the image are zero vectors in OCAB, and take part in the softmax;
* only windows of the last row and column of a shifted map hold pixels of different regions: they alone are
  masked;
* the published class shifts no window when `min(img_size) <= window_size`, whatever the image's size is.

Published names are kept; the published index buffers follow from the window size and are dropped.
"""

from opsin.restoration.models.hat import published
from opsin.restoration.models.hat.blocks import (
    CAB,
    HAB,
    OCAB,
    RHAG,
    ChannelAttention,
    WindowAttention,
    to_channels_first,
    to_channels_last,
)
from opsin.restoration.models.hat.network import HAT, VARIANTS, HATBackbone

__all__ = [
    "CAB",
    "HAB",
    "HAT",
    "OCAB",
    "RHAG",
    "VARIANTS",
    "ChannelAttention",
    "HATBackbone",
    "WindowAttention",
    "published",
    "to_channels_first",
    "to_channels_last",
]
