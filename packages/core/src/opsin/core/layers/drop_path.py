"""Stochastic depth (Deep Networks with Stochastic Depth, arXiv 1603.09382), one draw a sample."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample with probability `rate` while training.

    Kept samples are divided by 1 - rate, so the expectation does not change.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) to the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate:.3f}"


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of every block of every stage: they grow linearly from 0 to `rate` over all blocks."""
    rates = iter(torch.linspace(0, rate, sum(depths), device="cpu").tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]
