"""Sampling from a MoH-DiT: ancestral steps of a Gaussian diffusion whose variance is learned.

Improved Denoising Diffusion Probabilistic Models (arXiv 2102.09672), as DiT uses it: noise of 1000 levels
from 1e-4 to 0.02, fewer of them when sampling; the network tells the noise and, between the posterior's
variance and the step's own, the variance. The clean latent that a step implies is not clipped. A latent of
level s is sqrt(kept[s]) * clean + sqrt(1 - kept[s]) * noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opsin.core.backbones.moh.dit import MoHDiT
from opsin.core.errors import UserError

LEVELS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02


@dataclass(frozen=True)
class Schedule:
    """The levels that sampling visits.

    Attributes:
        levels: (S,) the network's own numbers of them, ascending.
        kept: (S,) share of the signal's power that is left at each.
        betas: (S,) variance that each adds to the one before it.
        posterior: (S,) variance of the one before, given this one and the clean latent.
    """

    levels: Tensor
    kept: Tensor
    betas: Tensor
    posterior: Tensor


def schedule(steps: int) -> Schedule:
    """`steps` of the 1000 levels, evenly spaced from the first to the last; float64.

    Raises:
        UserError: unless there are 2 to 1000 of them.
    """
    if not 2 <= steps <= LEVELS:
        raise UserError(f"{steps} sampling steps; there can be 2 to {LEVELS}")
    levels = torch.linspace(0, LEVELS - 1, steps, dtype=torch.float64).round().long()
    kept = (1 - torch.linspace(FIRST_BETA, LAST_BETA, LEVELS, dtype=torch.float64)).cumprod(0)[levels]
    before = torch.cat((kept.new_ones(1), kept[:-1]))
    betas = 1 - kept / before
    return Schedule(levels, kept, betas, betas * (1 - before) / (1 - kept))


@torch.no_grad()
def sample(
    network: MoHDiT,
    noise: Tensor,
    classes: Tensor,
    *,
    steps: int = 250,
    guidance: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Latents of the classes given.

    Args:
        network: in evaluation; it must tell the variance.
        noise: standard normal (N, in_channels, input_size, input_size).
        classes: (N,).
        steps: network evaluations.
        guidance: scale of classifier-free guidance, for which each step evaluates 2N latents; None for none.
        generator: where the noise of the steps comes from.

    Returns:
        (N, in_channels, input_size, input_size); the published networks' latents are a VAE's, times 0.18215.
    """
    plan, x = schedule(steps), noise
    for index in reversed(range(steps)):
        out = _tell(network, x, int(plan.levels[index]), classes, guidance)
        mean, log_variance = _step_back(x, out, plan, index)
        if index == 0:
            return mean
        drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = mean + (log_variance / 2).exp() * drawn
    return x


def _tell(network: MoHDiT, x: Tensor, level: int, classes: Tensor, guidance: float | None) -> Tensor:
    """What the network tells of latents of a level, (N, 2 * in_channels, H, W)."""
    levels = classes.new_full(classes.shape, level)
    if guidance is None:
        return network(x, levels, classes)
    none = torch.full_like(classes, network.settings.num_classes)
    both = network.forward_guided(torch.cat((x, x)), levels.repeat(2), torch.cat((classes, none)), guidance)
    return both[: len(x)]


def _step_back(x: Tensor, out: Tensor, plan: Schedule, index: int) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the variance of the latents one level before."""
    told, share = out.chunk(2, 1)  # the noise, and where the variance lies, -1 to 1
    kept, beta = plan.kept[index].item(), plan.betas[index].item()
    before = plan.kept[index - 1].item() if index else 1.0
    clean = (x - (1 - kept) ** 0.5 * told) / kept**0.5
    mean = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - kept)
    least = plan.posterior[max(index, 1)].log().item()  # at the first level the posterior has none
    return mean, least + (share + 1) / 2 * (plan.betas[index].log().item() - least)
