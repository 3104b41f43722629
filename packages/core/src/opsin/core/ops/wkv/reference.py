"""WKV by its definition: every pair of tokens in every channel. Memory grows with the square of the length.

Letters: B batch, T tokens that look, I tokens that are seen, C channels. A state counts as one token.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = -1e38  # the scale of a state that has seen nothing: finite, so that no inf - inf is ever formed

Tokens = tuple[Tensor, Tensor, Tensor]  # keys, values and counts (B, I, C)


def bi_wkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition of `bi_wkv`; arguments as there."""
    kind = torch.promote_types(v.dtype, torch.float32)
    w, u, k, values = (x.to(kind) for x in (w, u, k, v))
    places = torch.arange(k.shape[1], device=k.device)
    weight = powers(w, u, k, places[:, None] - places).softmax(2)
    return (weight * values[:, None]).sum(2).to(v.dtype)


def wkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of `wkv`; arguments as there, but the state is differentiable here."""
    kind = torch.promote_types(v.dtype, torch.float32)
    w, u, k, values, state = (x.to(kind) for x in (w, u, k, v, state))
    places = torch.arange(-1, k.shape[1], device=k.device)
    tokens, away = joined(state, k, values), places[1:, None] - places
    power = powers(w, u, tokens[0], away).masked_fill((away < 0)[..., None], -torch.inf)
    numerator, denominator, _ = sums(power, tokens)
    return (numerator / denominator).to(v.dtype), collected(w, tokens, places[-1] - places)


def initial_state(k: Tensor) -> Tensor:
    """The state (B, 3, C) before the first of the tokens k (B, T, C)."""
    state = k.new_zeros(k.shape[0], 3, k.shape[2], dtype=torch.promote_types(k.dtype, torch.float32))
    state[:, 2] = LOWEST
    return state


def joined(state: Tensor, k: Tensor, v: Tensor) -> Tokens:
    """The state's token and those that follow it."""
    above, below, scale = state.split(1, 1)
    return torch.cat([scale, k], 1), torch.cat([above, v], 1), torch.cat([below, torch.ones_like(k)], 1)


def powers(w: Tensor, u: Tensor, keys: Tensor, away: Tensor) -> Tensor:
    """The logarithm of the weight (B, T, I, C) of tokens that are `away` (T, I) steps."""
    away = away.abs()[..., None]
    return torch.where(away == 0, u + keys[:, None], keys[:, None] - (away - 1) * w)


def collected(w: Tensor, tokens: Tokens, decays: Tensor) -> Tensor:
    """The state (B, 3, C) of tokens that have decayed by so many steps (I)."""
    return torch.cat(sums((tokens[0] - decays[:, None] * w)[:, None], tokens), 1)


def sums(power: Tensor, tokens: Tokens) -> Tokens:
    """Sums over I of exp(power - top) times values, and times counts, and top: (B, T, C) each.

    Top is the largest power, so nothing overflows. It is a mere scale: no gradient flows through it.
    """
    _, values, counts = tokens
    top = power.detach().amax(2)
    weight = torch.exp(power - top[:, :, None])
    return (weight * values[:, None]).sum(2), (weight * counts[:, None]).sum(2), top
