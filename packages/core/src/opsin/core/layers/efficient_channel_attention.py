"""Efficient channel attention (ECA-Net, arXiv 1910.03151): channels weighted by a filter over their means."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS


def eca_kernel_size(channels: int, gamma: float = 2.0, b: float = 1.0) -> int:
    """The paper's filter length: |log2(channels) + b| / gamma, cut to an integer, plus 1 if even.

    3 for 16 to 127 channels, 5 for 128 to 2047, 7 from 2048. Published networks use other sizes, found by
    trying.
    """
    size = int(abs((math.log2(channels) + b) / gamma))
    return size if size % 2 else size + 1


def _odd(k_size: int | None, channels: int) -> int:
    """`k_size`, or the rule's.

    Raises:
        UserError: if it is even; the filter would give one gate too few.
    """
    size = eca_kernel_size(channels) if k_size is None else k_size
    if size < 1 or size % 2 == 0:
        raise UserError(f"k_size={size} of ECA must be odd", f"{size + 1}, for example")
    return size


@MODELS.register_module()
class ECA(nn.Module):
    """Global mean, one filter over the channel axis (zeros beyond its ends), sigmoid; the input times that.

    In configs of mmdet and mmseg it is a plugin of a stock ResNet, `layerL.B.eca` with the published names:

        plugins=[dict(cfg=dict(type="opsin.ECA", k_size=5), position="after_conv3")]

    Args:
        in_channels: channels C of the map.
        k_size: length of the filter, odd; None takes `eca_kernel_size(in_channels)`.

    Raises:
        UserError: if `k_size` is even.
    """

    _abbr_ = "eca"  # mmcv names a plugin after this

    def __init__(self, in_channels: int, k_size: int | None = None) -> None:
        super().__init__()
        size = _odd(k_size, in_channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def gates(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the factors (N, C), each in (0, 1)."""
        return self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.gates(x)[:, :, None, None]


@MODELS.register_module()
class ECANoSharing(ECA):
    """The ablation ECA-NS: each channel has a filter of its own over its neighbours; `conv.weight` (C, 1, k).

    Args:
        in_channels: channels C of the map.
        k_size: as for `ECA`.

    Raises:
        UserError: if `k_size` is even.
    """

    _abbr_ = "eca_ns"

    def __init__(self, in_channels: int, k_size: int | None = None) -> None:
        super().__init__(in_channels, k_size)
        size = self.conv.kernel_size[0]
        self.conv = nn.Conv1d(in_channels, in_channels, size, groups=in_channels, bias=False)

    def gates(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the factors (N, C), each in (0, 1)."""
        size = self.conv.kernel_size[0]
        neighbours = F.pad(x.mean((2, 3)), (size // 2, size // 2)).unfold(1, size, 1)
        return self.conv(neighbours).squeeze(2).sigmoid()
