"""Initial weights that many published systems share."""

import math

from torch import nn


def init_linear(module: nn.Module, *, std: float = 0.02) -> None:
    """Linear layers: truncated normal weights, zero bias. For `model.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_conv_fan_out(module: nn.Module) -> None:
    """Convolutions: normal weights of variance 2 / fan out (a group's), zero bias. For `model.apply`."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
