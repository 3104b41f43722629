"""The whole network: three dates to one cloud-free picture."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.registry import MODELS
from opsin.restoration.cloud_removal.models.pmaa.feature_extractor import FeatureExtractor, Norm
from opsin.restoration.cloud_removal.models.pmaa.progressive_block import ProgressiveBlock

DATES = 3
DEPTH = 5
BLOCKS = 3

NORMS: dict[str, tuple[Norm, type[nn.Module]]] = {
    "instance": (nn.InstanceNorm2d, nn.Identity),
    "batch": (nn.BatchNorm2d, nn.ReLU),
}
"""Norm, and what follows the first norm of separable convolutions."""


class CloudFree(NamedTuple):
    """What PMAA makes of T dates.

    Attributes:
        image: the cloud-free picture (B, out_channels, H, W) in (-1, 1).
        masks: cloud attention of each date (B, T, 1, H, W) in (0, 1).
        aux: each date's own guess of the picture (B, T, in_channels, H, W) in (-1, 1).
    """

    image: Tensor
    masks: Tensor
    aux: Tensor


@MODELS.register_module()
class PMAA(nn.Module):
    """PMAA, with the arguments of the published class and two more.

    Args:
        hidden_channels: width of the features; published: 32.
        out_channels: bands of the result: 4 for Sen2_MTC_New, 3 for Sen2_MTC_Old.
        in_channels: bands of a date.
        norm: `instance`, the network that was trained and published (its norms have no weights); `batch`, the
            class as it is written, which has a ReLU more in each separable convolution.

    Raises:
        UserError: for another norm.
    """

    def __init__(
        self,
        hidden_channels: int = 32,
        out_channels: int = 4,
        in_channels: int = 4,
        norm: Literal["instance", "batch"] = "instance",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise unknown("norm of PMAA", norm, NORMS)
        make_norm, act = NORMS[norm]
        dim, hidden = hidden_channels, 4 * hidden_channels
        self.feature_extractor = FeatureExtractor(in_channels, dim, make_norm)
        self.concat_unet = ProgressiveBlock(DATES * dim, hidden, dim, DEPTH, make_norm, act)
        others = (ProgressiveBlock(dim, hidden, dim, DEPTH, make_norm, act) for _ in range(BLOCKS - 1))
        self.other_unet = nn.Sequential(*others)
        self.output_layer = nn.Sequential(nn.Conv2d(dim, out_channels, 1), nn.Tanh())

    def forward(self, x: Tensor) -> CloudFree:
        """Dates (B, 3, in_channels, H, W), values from -1 to 1, in an order that matters.

        Raises:
            UserError: if there are not three dates, or a side is so short that the deepest map is one pixel.
        """
        height, width = x.shape[-2:]
        if x.ndim != 5 or x.shape[1] != DATES:
            raise UserError(f"PMAA takes {DATES} dates (B, {DATES}, C, H, W), and got {tuple(x.shape)}")
        if max(height, width) <= 2 ** (DEPTH - 1):
            raise UserError(
                f"PMAA got {width}x{height} pixels, of which its deepest map would be one",
                "give pictures of at least 32x32",
            )
        mask, features, aux = (part.unflatten(0, (-1, DATES)) for part in self._seen(x))
        fused = self.other_unet(self.concat_unet(features.flatten(1, 2)))
        return CloudFree(self.output_layer(fused), mask, aux)

    def _seen(self, x: Tensor) -> tuple[Tensor, ...]:
        """The extractor on all dates at once: instance norm keeps them apart."""
        return tuple(self.feature_extractor(torch.flatten(x, 0, 1)))


VARIANTS = {
    "pmaa_new": dict(hidden_channels=32, out_channels=4),
    "pmaa_old": dict(hidden_channels=32, out_channels=3),
}
