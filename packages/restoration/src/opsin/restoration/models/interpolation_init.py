"""A start for short trainings: the untrained network enlarges by interpolation instead of giving noise.

HAT has no skip from image to image, so an untrained one spends its first thousands of iterations learning to
interpolate. Published recipes can afford that; a training of minutes cannot. No weight is frozen and none is
out of the gradient's reach.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from opsin.registry import WEIGHT_INITIALIZERS
from opsin.restoration.degradation import cubic
from opsin.restoration.models.hat import HAT


def subpixel_filters(scale: int) -> Tensor:
    """(scale², 3, 3): what each pixel of an enlarged 1x1 cell takes from the 3x3 cells around it.

    Bicubic without its fourth and smallest tap, which a 3x3 convolution does not reach.
    """
    offsets = (np.arange(scale) + 0.5) / scale - 0.5
    taps = cubic(offsets[:, None] - np.array([-1.0, 0.0, 1.0]))
    taps /= taps.sum(1, keepdims=True)
    filters = np.einsum("ia,jb->ijab", taps, taps).reshape(scale**2, 3, 3)
    return torch.from_numpy(filters).float()


@WEIGHT_INITIALIZERS.register_module()
class InterpolationInit:
    """Sets a few filters of a `HAT` so that, before training, it enlarges almost as bicubic does.

    The colours pass in the first channels. Through the LeakyReLU they pass twice, once negated, because
    (leaky(x) - leaky(-x)) / (1 + slope) is x.
    """

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Changes `module`, a `HAT` with `upscale` above 1.

        Raises:
            TypeError: if it is another network.
        """
        if not isinstance(module, HAT) or module.upscale == 1:
            raise TypeError("InterpolationInit is for HAT with upscale 2, 3, 4, …")
        colours = module.conv_last.out_channels
        _pass_on(module.conv_first, colours)
        module.conv_after_body.weight[:colours] = 0
        module.conv_after_body.bias[:colours] = 0
        before, leaky = module.conv_before_upsample
        _pass_on(before, colours)
        before.weight[colours : 2 * colours] = -before.weight[:colours]
        before.bias[colours : 2 * colours] = 0
        convolutions = [layer for layer in module.upsample if isinstance(layer, nn.Conv2d)]
        _enlarge(convolutions[0], colours, [1 / (1 + leaky.negative_slope), -1 / (1 + leaky.negative_slope)])
        for convolution in convolutions[1:]:
            _enlarge(convolution, colours, [1.0])
        _pass_on(module.conv_last, colours)


def _pass_on(convolution: nn.Conv2d, colours: int) -> None:
    """The first `colours` outputs become the first inputs."""
    convolution.weight[:colours] = 0
    convolution.bias[:colours] = 0
    for colour in range(colours):
        convolution.weight[colour, colour, 1, 1] = 1


def _enlarge(convolution: nn.Conv2d, colours: int, signs: list[float]) -> None:
    """The first `colours` maps' outputs become subpixels of the inputs, which come in groups with `signs`."""
    per_map = convolution.out_channels // convolution.in_channels
    filters = subpixel_filters(round(per_map**0.5))
    convolution.weight[: colours * per_map] = 0
    convolution.bias[: colours * per_map] = 0
    for colour in range(colours):
        for group, sign in enumerate(signs):
            outputs = slice(colour * per_map, (colour + 1) * per_map)
            convolution.weight[outputs, group * colours + colour] = sign * filters
