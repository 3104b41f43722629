"""The discriminator that HAT's real-world model is trained against, a U-Net with spectral norm.

Introduced with Real-ESRGAN (arXiv 2107.10833). Image (N, 3, H, W), sides multiples of 8, to a map of logits
(N, 1, H, W): positive where it takes the picture for a real one. Published names are kept; spectral norm is
torch's first form (`weight_orig`, `weight_u`, `weight_v`), because published files have its names.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from opsin.core import parity
from opsin.core.errors import UserError
from opsin.core.published import place
from opsin.registry import MODELS


def _down(channels: int, out_channels: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(channels, out_channels, 4, stride=2, padding=1, bias=False))


def _same(channels: int, out_channels: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False))


@MODELS.register_module()
class UNetDiscriminatorSN(nn.Module):
    """Says for every pixel how real the picture looks around it.

    Args:
        num_in_ch: channels of the image.
        num_feat: channels at full size; they double with each halving.
        skip_connection: add the way down's maps on the way up.
    """

    def __init__(self, num_in_ch: int, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        n = num_feat
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, n, 3, padding=1)
        self.conv1, self.conv2, self.conv3 = _down(n, 2 * n), _down(2 * n, 4 * n), _down(4 * n, 8 * n)
        self.conv4, self.conv5, self.conv6 = _same(8 * n, 4 * n), _same(4 * n, 2 * n), _same(2 * n, n)
        self.conv7, self.conv8 = _same(n, n), _same(n, n)
        self.conv9 = nn.Conv2d(n, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, 1, H, W).

        Raises:
            UserError: if a side is no multiple of 8.
        """
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise UserError(
                f"the discriminator takes sides that are multiples of 8, and got {x.shape[3]}x{x.shape[2]}",
                "set the size of RandomCropPair so that size times scale is one",
            )
        maps = [F.leaky_relu(self.conv0(x), 0.2)]
        for conv in (self.conv1, self.conv2, self.conv3):
            maps.append(F.leaky_relu(conv(maps[-1]), 0.2))
        y = maps.pop()
        for conv, skip in zip((self.conv4, self.conv5, self.conv6), reversed(maps), strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = F.leaky_relu(conv(y), 0.2)
            if self.skip_connection:
                y = y + skip
        for conv in (self.conv7, self.conv8):
            y = F.leaky_relu(conv(y), 0.2)
        return self.conv9(y)


@parity.adapter("hat", r"discriminator_arch\.py UNetDiscriminatorSN\b")
def _discriminator(case: parity.Case) -> dict[str, Any]:
    model = UNetDiscriminatorSN(**case.built_with)
    place(model, case.state_dict(), source=case.name)
    with torch.no_grad():
        return {"out": model.eval()(case.inputs()["x"])}
