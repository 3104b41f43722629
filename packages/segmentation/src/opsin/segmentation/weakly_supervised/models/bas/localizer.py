"""The localisation network of BAS, whatever its backbone: a class-wise foreground generator in the middle.

Images (B, 3, H, W); features F (B, C, h, w) of stride 8 from the lower half; K classes. The upper half and
the classifier give class maps A (B, K, h', w') of stride 16, whose means are the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import Tensors
from opsin.segmentation.weakly_supervised.models.bas.suppression import (
    Clamp,
    Suppression,
    background_ratio,
    of_label,
    run_frozen,
)

CLASSIFIER_WIDTH = 1024


class BASLocalizer(nn.Module):
    """Generator `classifier_loc` and classifier `classifier_cls` on a backbone; a subclass has the backbone.

    Args:
        feature_channels: channels C of F.
        top_channels: channels of the upper half's map.
        num_classes: K.
        classifier_width: hidden channels of the classifier.
        clamp: of the ratio of activations.
        relu_class_maps: class maps go through a ReLU before their mean, as in the first version.
    """

    def __init__(
        self,
        feature_channels: int,
        top_channels: int,
        num_classes: int,
        *,
        classifier_width: int = CLASSIFIER_WIDTH,
        clamp: Clamp | None = None,
        relu_class_maps: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.clamp = num_classes, clamp or Clamp()
        layers: list[nn.Module] = [
            nn.Conv2d(top_channels, classifier_width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(classifier_width, classifier_width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(classifier_width, num_classes, 1),
        ]
        self.classifier_cls = nn.Sequential(*layers, *([nn.ReLU()] if relu_class_maps else []))
        self.classifier_loc = nn.Sequential(
            nn.Conv2d(feature_channels, num_classes, 3, padding=1), nn.Sigmoid()
        )

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' files: the copies that their first version keeps are dropped."""
        return {name: tensor for name, tensor in tensors.items() if "_copy." not in name}

    def features(self, x: Tensor) -> Tensor:
        """The lower half: images (B, 3, H, W) to F (B, C, h, w)."""
        raise NotImplementedError

    def upper_half(self) -> Sequence[nn.Module]:
        """The modules between F and the classifier, in their order."""
        raise NotImplementedError

    def _class_maps(self, features: Tensor) -> Tensor:
        for module in (*self.upper_half(), self.classifier_cls):
            features = module(features)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Images to class scores (B, K)."""
        return self._class_maps(self.features(x)).mean((2, 3))

    def suppress(self, x: Tensor, labels: Tensor) -> Suppression:
        """A training pass: images and their labels (B,)."""
        features = self.features(x)
        class_maps = self._class_maps(features)
        scores = class_maps.mean((2, 3))
        foreground = of_label(self.classifier_loc(features), labels)[:, None]
        masked = class_maps * F.avg_pool2d(foreground, 2)
        rest = run_frozen((*self.upper_half(), self.classifier_cls), features.detach() * (1 - foreground))
        whole, background = of_label(scores, labels).detach(), of_label(rest.mean((2, 3)), labels)
        ratio = background_ratio(background, whole, self.clamp)
        return Suppression(scores, masked.mean((2, 3)), foreground, whole, background, ratio)

    def localize(self, x: Tensor, top_k: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class scores (B, K) and a foreground map (B, 1, h, w), a mean of those of the `top_k` best classes.

        With `top_k` 1 it is the map of the label where labels (B,) are given, as the authors measure, else of
        the best class.

        Raises:
            UserError: unless `top_k` lies in 1 … K.
        """
        if not 1 <= top_k <= self.num_classes:
            raise UserError(f"top_k={top_k} of {self.num_classes} classes", f"give 1 to {self.num_classes}")
        features = self.features(x)
        scores = self._class_maps(features).mean((2, 3))
        chosen = scores.topk(top_k, dim=1).indices
        if top_k == 1 and labels is not None:
            chosen = labels[:, None]
        maps = self.classifier_loc(features)
        index = chosen[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        return scores, maps.gather(1, index).mean(1, keepdim=True)


def init_heads(network: nn.Module) -> None:
    """Xavier weights and no bias for generator and classifier."""
    for name, module in network.named_modules():
        if name.startswith("classifier_") and isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def version_settings(clamp_value: float, first: bool) -> dict[str, Any]:
    """Arguments of `BASLocalizer` for the first version (CVPR 2022) or the extension."""
    clamp = Clamp(0.0, equal=True) if first else Clamp(clamp_value)
    return {"clamp": clamp, "relu_class_maps": first}
