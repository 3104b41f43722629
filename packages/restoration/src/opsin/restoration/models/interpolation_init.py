"""A start for short trainings: the untrained network enlarges by interpolation instead of giving noise.

HAT has no skip from image to image, so an untrained one spends its first thousands of iterations learning to
interpolate. Published recipes can afford that; a training of minutes cannot. No weight is frozen and none is
out of the gradient's reach.
"""

from __future__ import annotations

from typing import cast

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
        """Changes `module`, a `HAT` with `upscale` above 1 and a convolution after its groups.

        Raises:
            TypeError: if it is another network.
        """
        if not isinstance(module, HAT) or module.upscale == 1:
            raise TypeError("InterpolationInit is for HAT with upscale 2, 3, 4, …")
        if not isinstance(module.conv_after_body, nn.Conv2d):
            raise TypeError("InterpolationInit is for HAT with resi_connection '1conv'")
        colours = module.conv_last.out_channels
        _pass_on(module.conv_first, colours)
        _clear(module.conv_after_body, slice(colours))
        before, leaky = cast("tuple[nn.Conv2d, nn.LeakyReLU]", module.conv_before_upsample)
        negated = slice(colours, 2 * colours)
        _pass_on(before, colours)
        _clear(before, negated)
        before.weight[negated] = -before.weight[:colours]
        convolutions = [layer for layer in module.upsample if isinstance(layer, nn.Conv2d)]
        _enlarge(convolutions[0], colours, [1 / (1 + leaky.negative_slope), -1 / (1 + leaky.negative_slope)])
        for convolution in convolutions[1:]:
            _enlarge(convolution, colours, [1.0])
        _pass_on(module.conv_last, colours)


def _clear(convolution: nn.Conv2d, outputs: slice) -> None:
    """The given outputs become 0."""
    convolution.weight[outputs] = 0
    if convolution.bias is not None:
        convolution.bias[outputs] = 0


def _pass_on(convolution: nn.Conv2d, colours: int) -> None:
    """The first `colours` outputs become the first inputs."""
    _clear(convolution, slice(colours))
    for colour in range(colours):
        convolution.weight[colour, colour, 1, 1] = 1


def _enlarge(convolution: nn.Conv2d, colours: int, signs: list[float]) -> None:
    """The first `colours` maps' outputs become subpixels of the inputs, which come in groups with `signs`."""
    per_map = convolution.out_channels // convolution.in_channels
    filters = subpixel_filters(round(per_map**0.5))
    _clear(convolution, slice(colours * per_map))
    for colour in range(colours):
        for group, sign in enumerate(signs):
            outputs = slice(colour * per_map, (colour + 1) * per_map)
            convolution.weight[outputs, group * colours + colour] = sign * filters
