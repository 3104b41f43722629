"""The discriminator that PMAA is trained against: five strided convolutions and a map of verdicts."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from opsin.registry import MODELS


@MODELS.register_module()
class CloudFreeDiscriminator(nn.Module):
    """Judges a picture beside the cloudy dates it belongs to; published names are kept.

    Args:
        input_nc: channels of the dates and the picture together: 3·4 + 4 for Sen2_MTC_New.
        ndf: channels of the first two layers.
    """

    def __init__(self, input_nc: int = 16, ndf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        widths = [ndf, ndf, 2 * ndf, 4 * ndf, 8 * ndf]
        for width, out_width in pairwise(widths):
            layers += [
                nn.Conv2d(width, out_width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out_width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.discriminator = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_nc, H, W), sides of at least 64, to (B, 1, H // 32 - 1, W // 32 - 1): 1 is real."""
        return self.discriminator(x)
