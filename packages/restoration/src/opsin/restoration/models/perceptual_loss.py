"""The perceptual loss: how far two pictures are apart in the features of an ImageNet classifier, VGG19.

"Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (arXiv 1603.08155), on VGG19 ("Very Deep
Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556). Pictures (N, 3, H, W), RGB from 0
to 1, to a number. Features are taken before their ReLU.

The classifier's weights come from a file in torchvision's layout (`features.0.weight`, …). They are read when
training starts, learn nothing and are in no checkpoint, so testing and predicting need no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from opsin.core.errors import UserError, unknown
from opsin.core.published import read_checkpoint
from opsin.registry import MODELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Channels of each stage's convolutions; a 2x2 max pooling lies between two stages.
STAGES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
LAYER_WEIGHTS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


class Convolution(NamedTuple):
    """A 3x3 convolution of VGG19: its name, its name in torchvision's file, and its place."""

    name: str
    source: str
    channels: tuple[int, int]  # out, in
    pooled: bool  # whether a pooling lies before it


def vgg19() -> list[Convolution]:
    """The convolutions in their order, conv1_1 to conv5_4."""
    convolutions, place, in_channels = [], 0, 3
    for stage, widths in enumerate(STAGES, 1):
        for number, channels in enumerate(widths, 1):
            name, pooled = f"conv{stage}_{number}", stage > 1 and number == 1
            convolutions.append(Convolution(name, f"features.{place}", (channels, in_channels), pooled))
            place, in_channels = place + 2, channels  # a ReLU follows
        place += 1  # the pooling
    return convolutions


@MODELS.register_module()
class PerceptualLoss(BaseModule):
    """Weighted sum over layers of the mean absolute difference of features.

    Args:
        checkpoint: torchvision's VGG19, `vgg19-dcbb9e9d.pth`; whole, or its convolutions alone.
        layer_weights: weight of each layer that counts, `conv<stage>_<number>`.
        loss_weight: of the sum.

    Raises:
        UserError: at construction for a layer that VGG19 has not.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        checkpoint: str | None = None,
        layer_weights: Mapping[str, float] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.layer_weights = dict(LAYER_WEIGHTS if layer_weights is None else layer_weights)
        self.loss_weight = loss_weight
        convolutions = vgg19()
        names = [convolution.name for convolution in convolutions]
        for layer in self.layer_weights:
            if layer not in names:
                raise unknown("layer of VGG19", layer, names)
        self.convolutions = convolutions[: 1 + max(map(names.index, self.layer_weights))]
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def init_weights(self) -> None:
        """Reads the classifier's weights.

        Raises:
            UserError: if the file is missing, is no checkpoint, or holds another network.
        """
        path = Path(self.checkpoint or "vgg19-dcbb9e9d.pth")
        if not path.is_file():
            raise UserError(
                f"the perceptual loss needs VGG19's weights, and there is no file {path}",
                "get torchvision's vgg19-dcbb9e9d.pth and give it as model.perceptual_loss.checkpoint=FILE, "
                "or train without: model.perceptual_loss=None",
            )
        tensors = read_checkpoint(path)
        for name, source, channels, _ in self.convolutions:
            for kind, shape in (("weight", (*channels, 3, 3)), ("bias", channels[:1])):
                tensor = tensors.get(f"{source}.{kind}")
                if tensor is None or tensor.shape != shape:
                    raise UserError(
                        f"{path} is not torchvision's VGG19: {source}.{kind} of shape {shape} is missing"
                    )
                self.register_buffer(f"{name}_{kind}", tensor.to(self.mean), persistent=False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Two tensors (N, 3, H, W), sides of at least 16, to a scalar; no gradient goes to `target`."""
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(image)
        terms = [weight * F.l1_loss(found[n], wanted[n]) for n, weight in self.layer_weights.items()]
        return self.loss_weight * torch.stack(terms).sum()

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of `layer_weights`, before their ReLU; stage s has sides 2^(s-1) times smaller."""
        if not hasattr(self, "conv1_1_weight"):
            raise RuntimeError("the perceptual loss has no weights before init_weights()")
        maps, x = {}, (image - self.mean) / self.std
        for name, _, _, pooled in self.convolutions:
            if pooled:
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1)
            if name in self.layer_weights:
                maps[name] = x
            x = F.relu(x)
        return maps
