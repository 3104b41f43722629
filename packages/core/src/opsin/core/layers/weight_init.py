"""Initial weights that many published systems share."""

import math

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def init_scan_steps(bias: Tensor) -> None:
    """Bias under the softplus of a selective scan: steps begin log-uniform in 0.001 to 0.1 (Mamba)."""
    step = torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)).exp().clamp(min=1e-4)
    bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of this is `step`
