"""Depth-wise convolution that sees no later step, as Mamba has it before its scan."""

import torch.nn.functional as F
from torch import Tensor


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depth-wise convolution along L of x (B, L, E) with weight (E, 1, K): step t sees t - K + 1 to t."""
    padded = F.pad(x.transpose(1, 2), (weight.shape[2] - 1, 0))
    return F.conv1d(padded, weight, bias, groups=weight.shape[0]).transpose(1, 2)
