"""What PMAA sees in one date: features of every pixel, and where the clouds are.

Two networks of one layout: the generator's own extractor, with instance norm, and the cloud teacher, which
the authors trained beforehand, with batch norm in evaluation. Published names are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.registry import MODELS

Norm = Callable[[int], nn.Module]

ASPP_CHANNELS = 128
ASPP_DILATIONS = (12, 24, 36)


class DateFeatures(NamedTuple):
    """What the extractor tells of a date.

    Attributes:
        mask: cloud attention (B, 1, H, W) in (0, 1).
        features: (B, dim, H, W).
        aux: the date's own guess of the cloud-free picture (B, in_channels, H, W) in (-1, 1).
    """

    mask: Tensor
    features: Tensor
    aux: Tensor


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, norm: Norm, dilation: int = 1) -> Any:
    """A convolution without bias that keeps the size, the norm and ReLU, as an `nn.Sequential`."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, norm(out_channels), nn.ReLU())


class Bottleneck(nn.Module):
    """1x1, dilated 3x3, 1x1, each with norm and ReLU, the last one too; the residual is the caller's."""

    def __init__(self, dim: int, norm: Norm) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            *conv_norm_relu(dim, dim, 1, norm),
            *conv_norm_relu(dim, dim, 3, norm, dilation=2),
            *conv_norm_relu(dim, dim, 1, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        return self.bottleneck(x)


class CloudDetector(nn.Module):
    """Three 1x1 convolutions and a sigmoid: how cloudy each pixel is."""

    def __init__(self, dim: int, norm: Norm) -> None:
        super().__init__()
        self.cloud_det = nn.Sequential(
            nn.Conv2d(dim, 2 * dim, 1),
            norm(2 * dim),
            nn.ReLU(),
            nn.Conv2d(2 * dim, 4 * dim, 1),
            norm(4 * dim),
            nn.ReLU(),
            nn.Conv2d(4 * dim, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, 1, H, W) in (0, 1)."""
        return self.cloud_det(x)


class PooledBranch(nn.Sequential):
    """The average of the whole map through a 1x1 convolution, spread over the map again."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W), bilinear (constant, as there is one pixel to spread)."""
        pooled = super().forward(x)
        return F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587) with one width in and out.

    Args:
        dim: channels in and out.
        norm: makes a norm layer.
        pooling_norm: whether the pooled branch is normalised; instance norm of one pixel is undefined.
    """

    def __init__(self, dim: int, norm: Norm, *, pooling_norm: bool) -> None:
        super().__init__()
        pooled: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, ASPP_CHANNELS, 1, bias=False)]
        pooled += [norm(ASPP_CHANNELS), nn.ReLU()] if pooling_norm else [nn.ReLU()]
        self.convs = nn.ModuleList(
            [
                conv_norm_relu(dim, ASPP_CHANNELS, 1, norm),
                *(conv_norm_relu(dim, ASPP_CHANNELS, 3, norm, dilation=d) for d in ASPP_DILATIONS),
                PooledBranch(*pooled),
            ]
        )
        joined = len(self.convs) * ASPP_CHANNELS
        self.project = nn.Sequential(*conv_norm_relu(joined, dim, 1, norm), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        return self.project(torch.cat([conv(x) for conv in self.convs], dim=1))


class FeatureExtractor(BaseModule):
    """Features and cloud attention of one date.

    Args:
        in_channels: bands of a date.
        dim: width of the features.
        norm: makes a norm layer.
        pooling_norm: see `ASPP`.
        init_cfg: mmengine's, for weights to begin with.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        norm: Norm,
        *,
        pooling_norm: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.conv_in = conv_norm_relu(in_channels, dim, 3, norm)
        self.cloud_detection = CloudDetector(dim, norm)
        self.bottle1, self.bottle2, self.bottle3 = (Bottleneck(dim, norm) for _ in range(3))
        self.bottle4, self.bottle5, self.bottle6 = (Bottleneck(dim, norm) for _ in range(3))
        self.ASPP = ASPP(dim, norm, pooling_norm=pooling_norm)
        self.aux_conv = nn.Conv2d(dim, in_channels, 3, padding=1)

    def forward(self, x: Tensor) -> DateFeatures:
        """A date (B, in_channels, H, W), values from -1 to 1."""
        y = self.conv_in(x)
        y = F.relu(self.bottle1(y) + y)
        first = self.cloud_detection(y)
        y = F.relu(self.bottle2(y) * first + y)
        y = F.relu(self.bottle3(y) * first + y)
        mask = self.cloud_detection(y)  # one detector, used twice
        y = F.relu(self.bottle4(y) * mask + y)
        y = F.relu(self.bottle5(y) * mask + y)
        y = F.relu(self.bottle6(y) + y)
        features = self.ASPP(y)
        return DateFeatures(mask, features, torch.tanh(self.aux_conv(features)))


@MODELS.register_module()
class CloudTeacher(FeatureExtractor):
    """The frozen network whose cloud masks PMAA's attention is trained towards; always in evaluation.

    Args:
        in_channels: bands of a date.
        init_cfg: `dict(type='opsin.Published', checkpoint='…/Feature_Extrator_FS2.pth')` for the authors'
            weights, read when a training begins.
    """

    def __init__(self, in_channels: int = 4, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(in_channels, 32, nn.BatchNorm2d, pooling_norm=True, init_cfg=init_cfg)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> CloudTeacher:
        """Stays in evaluation."""
        return super().train(False)

    @torch.no_grad()
    def masks(self, dates: Tensor, clear: Tensor) -> Tensor:
        """Cloud masks (B, T, 1, H, W) of dates (B, T, C, H, W); `clear` is not looked at."""
        return self(dates.flatten(0, 1)).mask.unflatten(0, dates.shape[:2])
