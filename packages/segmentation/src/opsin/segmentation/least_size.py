"""Pictures too small for a network's strides."""

import torch.nn.functional as F
from torch import Tensor


def at_least(images: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W), those with a side shorter than `side` padded to it on the right and below."""
    height, width = images.shape[-2:]
    if min(height, width) >= side:
        return images
    return F.pad(images, (0, max(0, side - width), 0, max(0, side - height)))
