"""MambaMixer's links: what a mixer reads is a learned weighted average of what all mixers before it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def average(sources: Sequence[Tensor], weights: Iterable[Tensor]) -> Tensor:
    """The sum of the sources, each times its entry of the vectors `weights`."""
    factors = torch.cat(list(weights)).unbind()
    total = sources[0] * factors[0]
    for source, factor in zip(sources[1:], factors[1:], strict=True):
        total = torch.addcmul(total, source, factor)
    return total


def _call(mixer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return mixer(x)


class MixerStack(nn.Module):
    """Pairs of a token mixer and a channel mixer on tensors of any one shape.

    With both streams beginning as the input x, and i running over all that is there already:

        token mixer l reads      sum_i alpha[l, i] token_i + sum_i beta[l, i] channel_i       (i < l)
        channel mixer l reads    sum_i theta[l, i] token_i + sum_i gamma[l, i] channel_i      (token_l too)

    and the stack gives what token mixer n + 1 would read. The scalars begin as ones, but zeros for the second
    copy of x, so that the stack begins as a plain residual one: each mixer reads x and all outputs before it.

    Args:
        token_mixers: n modules that keep the shape of what they read; norms are their own business.
        channel_mixers: as many.
    """

    def __init__(self, token_mixers: Sequence[nn.Module], channel_mixers: Sequence[nn.Module]) -> None:
        super().__init__()
        depth = len(token_mixers)
        if len(channel_mixers) != depth:
            raise ValueError(f"{depth} token mixers and {len(channel_mixers)} channel mixers")
        self.token_mixers = nn.ModuleList(token_mixers)
        self.channel_mixers = nn.ModuleList(channel_mixers)
        self.alpha = nn.ParameterList(_all_but_x(level + 1) for level in range(depth + 1))
        self.beta = nn.ParameterList(torch.ones(level + 1) for level in range(depth + 1))
        self.theta = nn.ParameterList(_all_but_x(level + 2) for level in range(depth))
        self.gamma = nn.ParameterList(torch.ones(level + 1) for level in range(depth))

    def forward(self, x: Tensor, run: Callable[..., Any] = _call) -> Tensor:
        """A tensor to the same shape; `run(mixer, x)` calls a mixer (a `Trunk`'s `run` may recompute it)."""
        tokens, channels = [x], [x]
        for level, (token_mixer, channel_mixer) in enumerate(
            zip(self.token_mixers, self.channel_mixers, strict=True)
        ):
            read = average([*tokens, *channels], (self.alpha[level], self.beta[level]))
            tokens.append(run(token_mixer, read))
            read = average([*tokens, *channels], (self.theta[level], self.gamma[level]))
            channels.append(run(channel_mixer, read))
        return average([*tokens, *channels], (self.alpha[-1], self.beta[-1]))


def _all_but_x(count: int) -> Tensor:
    weights = torch.ones(count)
    weights[0] = 0
    return weights
