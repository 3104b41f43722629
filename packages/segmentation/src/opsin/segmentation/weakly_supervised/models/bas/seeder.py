"""BAS for segmentation: maps of the classes that an image has, from which seeds of its mask are cut.

ResNet-50 of stride 16; one of an image's classes, drawn at random, is the label of a training pass. What
differs from localisation: no pooling between the halves, a plain linear classifier, and the foreground
guidance reads class maps that get no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.models.bas.backbones import Depth, ResNetStem, expansion
from opsin.segmentation.weakly_supervised.models.bas.localizer import init_heads
from opsin.segmentation.weakly_supervised.models.bas.suppression import (
    Clamp,
    Suppression,
    background_ratio,
    of_label,
    run_frozen,
)


@MODELS.register_module()
class BASSeeder(ResNetStem):
    """Generator and classifier on ResNet.

    Args:
        num_classes: K.
        depth: as for `BASResNet`.
        base_channels: width of the first stage; 64 as published.
        clamp_value: see `Clamp`.
    """

    def __init__(
        self, num_classes: int = 20, *, depth: Depth = 50, base_channels: int = 64, clamp_value: float = 1.0
    ) -> None:
        super().__init__()
        self.num_classes, self.clamp = num_classes, Clamp(clamp_value)
        self.add_resnet(depth, (1, 2, 2, 1), base_channels)
        width = base_channels * expansion(depth)
        self.classifier_cls = nn.Conv2d(8 * width, num_classes, 1, bias=False)
        self.classifier_loc = nn.Sequential(
            nn.Conv2d(4 * width, num_classes, 3, padding=1, bias=False), nn.Sigmoid()
        )
        init_heads(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to class scores (B, K)."""
        return self.classifier_cls(self.layer4(self.lower_stages(x))).mean((2, 3))

    def suppress(self, x: Tensor, labels: Tensor) -> Suppression:
        """A training pass: images, and of each the class (B,) that was drawn."""
        features = self.lower_stages(x)
        class_maps = self.classifier_cls(self.layer4(features))
        scores = class_maps.mean((2, 3))
        foreground = of_label(self.classifier_loc(features), labels)[:, None]
        masked = class_maps.detach() * foreground
        rest = run_frozen((self.layer4, self.classifier_cls), features.detach() * (1 - foreground))
        whole, background = of_label(scores, labels).detach(), of_label(rest.mean((2, 3)), labels)
        ratio = background_ratio(background, whole, self.clamp)
        return Suppression(scores, masked.mean((2, 3)), foreground, whole, background, ratio)

    def class_foregrounds(self, image: Tensor) -> Tensor:
        """One image (3, H, W) to the sum of its maps and its mirror's, (K, h, w)."""
        return flipped_sum(self.classifier_loc(self.lower_stages(mirrored(image))))

    def class_activations(self, image: Tensor) -> Tensor:
        """One image (3, H, W) to its class maps and its mirror's, negative ones cut off, (K, h', w')."""
        return flipped_sum(self.classifier_cls(self.layer4(self.lower_stages(mirrored(image)))).relu())


def present_against_absent(scores: Tensor, present: Tensor) -> Tensor:
    """A softmax cross entropy of each present class against the absent ones; summed, a mean over images.

    Args:
        scores: (B, K).
        present: (B, K) of 0 and 1.
    """
    absent = scores.masked_fill(present.bool(), -torch.inf).logsumexp(1, keepdim=True)
    entropy = F.softplus(absent - scores)  # -log of e^s / (e^s + sum of the absent)
    return (entropy * present).sum(1).mean()


def flipped_sum(maps: Tensor) -> Tensor:
    """Maps (2, …, W) of an image and of its mirror to their sum in the image's frame."""
    return maps[0] + maps[1].flip(-1)


def mirrored(image: Tensor) -> Tensor:
    """An image (3, H, W) and its mirror, (2, 3, H, W)."""
    return torch.stack((image, image.flip(-1)))
