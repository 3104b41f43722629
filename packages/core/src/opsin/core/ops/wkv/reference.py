"""WKV by its definition: every pair of tokens in every channel. Memory grows with the square of the length.

Letters: B batch, T tokens that look, I tokens that are seen, C channels. The state counts as a token as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = -1e38  # the scale of a state that has seen nothing: finite, so that no inf - inf is ever formed


def bi_wkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition of `bi_wkv`; arguments as there."""
    kind = torch.promote_types(v.dtype, torch.float32)
    w, u, k, values = (x.to(kind) for x in (w, u, k, v))
    places = torch.arange(k.shape[1], device=k.device)
    weight = powers(w, u, k, places, places).softmax(2)
    return (weight * values[:, None]).sum(2).to(v.dtype)


def wkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of `wkv`; arguments as there, but the state is differentiable here."""
    kind = torch.promote_types(v.dtype, torch.float32)
    w, u, k, values, state = (x.to(kind) for x in (w, u, k, v, state))
    tokens = joined(state, k, values)
    places = torch.arange(-1, k.shape[1], device=k.device)
    power = powers(w, u, tokens[0], places, places[1:])
    power = power.masked_fill((places > places[1:, None])[..., None], -torch.inf)
    numerator, denominator, _ = sums(power, *tokens[1:])
    return (numerator / denominator).to(v.dtype), advanced(w, k, values, state)


def initial_state(k: Tensor) -> Tensor:
    """The state (B, 3, C) before the first of the tokens k (B, T, C)."""
    state = k.new_zeros(k.shape[0], 3, k.shape[2], dtype=torch.promote_types(k.dtype, torch.float32))
    state[:, 2] = LOWEST
    return state


def advanced(w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """The state (B, 3, C) after the tokens."""
    keys, values, counts = joined(state, k, v)
    decays = torch.arange(k.shape[1], -1, -1, device=k.device)[:, None]
    return torch.cat(sums((keys - decays * w)[:, None], values, counts), 1)


def joined(state: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and counts (B, I, C) of the state's token and those that follow it."""
    above, below, scale = state.split(1, 1)
    return torch.cat([scale, k], 1), torch.cat([above, v], 1), torch.cat([below, torch.ones_like(k)], 1)


def powers(w: Tensor, u: Tensor, keys: Tensor, places: Tensor, own: Tensor) -> Tensor:
    """The logarithm of the weight (B, T, I, C) that tokens at `own` (T) give to those at `places` (I)."""
    away = (own[:, None] - places).abs()[..., None]
    return torch.where(away == 0, u + keys[:, None], keys[:, None] - (away - 1) * w)


def sums(power: Tensor, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over I of exp(power) times values, and times counts, at the scale exp(top), and top: (B, T, C) each.

    The scale is the largest weight, so nothing overflows; it says nothing of its own, so no gradient flows
    through it.
    """
    top = power.detach().amax(2)
    weight = torch.exp(power - top[:, :, None])
    return (weight * values[:, None]).sum(2), (weight * counts[:, None]).sum(2), top
