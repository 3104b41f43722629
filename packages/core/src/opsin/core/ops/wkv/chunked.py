"""WKV in vectorised PyTorch, for any device: what runs where there is neither Numba nor Triton.

The definition, `CHUNK` tokens at a time, between the state of all tokens before the chunk and, where it goes
both ways, that of all tokens after it. Time and memory are linear in the length. The backward pass keeps the
states between chunks.

Every tensor is of the computing type: w, u (C,), k, v (B, T, C), states (B, 3, C). Letters as in `reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opsin.core.ops.wkv.reference import (
    Tokens,
    collected,
    initial_state,
    joined,
    powers,
    sums,
    wkv_reference,
)

CHUNK = 16  # tokens that see each other pair by pair

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]  # by w, u, k, v


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, C) of the causal recurrence, and the state after it."""
    y = v.new_empty(v.shape)
    for part in _parts(k):
        y[:, part], state = wkv_reference(w, u, k[:, part], v[:, part], state)
    return y, state.clone()


def backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor) -> Gradients:
    """Gradients of `forward`'s output by w, u, k and v."""
    totals, by_state = _Totals(w, u, k, v), torch.zeros_like(state[:, :2])
    for part, past in zip(reversed(_parts(k)), reversed(_pasts(w, k, v, state)), strict=True):
        chunk = _Chunk(part, k, v, past)
        by_state = totals.add_state(chunk, by_state) + totals.add_outputs(chunk, dy)[:, :, 0]
    return totals.gradients


def bi_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Output (B, T, C) of the bidirectional sums."""
    y = v.new_empty(v.shape)
    for chunk in _bi_chunks(w, k, v):
        numerator, denominator, _ = sums(chunk.powers(w, u), chunk.tokens)
        y[:, chunk.part] = numerator / denominator
    return y


def bi_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> Gradients:
    """Gradients of `bi_forward` by w, u, k and v."""
    totals, chunks, by_futures = _Totals(w, u, k, v), _bi_chunks(w, k, v), []
    by_past = by_future = k.new_zeros(k.shape[0], 2, k.shape[2])
    for chunk in reversed(chunks):
        seen = totals.add_outputs(chunk, dy)
        by_past = totals.add_state(chunk, by_past) + seen[:, :, 0]
        by_futures.append(seen[:, :, -1])
    for chunk, seen in zip(chunks[1:], reversed(by_futures[1:]), strict=True):
        by_future = totals.add_state(chunk, by_future + seen, ahead=True)
    return totals.gradients


def _parts(k: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, k.shape[1], CHUNK)]


def _pasts(w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> list[Tensor]:
    """The state of all tokens before each chunk."""
    states = []
    for part in _parts(k):
        states.append(state)
        tokens, decays = _Chunk(part, k, v, state).side(ahead=False)
        state = collected(w, tokens, decays)
    return states


def _bi_chunks(w: Tensor, k: Tensor, v: Tensor) -> list[_Chunk]:
    """All chunks, with the states of the tokens before and after each."""
    pasts, future, chunks = _pasts(w, k, v, initial_state(k)), initial_state(k), []
    for part, past in zip(reversed(_parts(k)), reversed(pasts), strict=True):
        chunks.append(_Chunk(part, k, v, past, future))
        future = collected(w, *chunks[-1].side(ahead=True))
    return chunks[::-1]


class _Chunk:
    """Some tokens in a row, between the state of those before and, if given, that of those after."""

    def __init__(self, part: slice, k: Tensor, v: Tensor, past: Tensor, future: Tensor | None = None) -> None:
        self.part, self.causal = part, future is None
        self.tokens = joined(past, k[:, part], v[:, part])
        places = torch.arange(self.tokens[0].shape[1], device=k.device)
        self.own = places[1:]
        if future is not None:
            keys, values, counts = self.tokens
            above, below, scale = future.split(1, 1)
            self.tokens = (
                torch.cat([keys, scale], 1),
                torch.cat([values, above], 1),
                torch.cat([counts, below], 1),
            )
            places = torch.arange(len(places) + 1, device=k.device)
        self.away = self.own[:, None] - places  # (T, I)

    def powers(self, w: Tensor, u: Tensor) -> Tensor:
        """The logarithm of the weights (B, T, I, C) that the chunk's tokens give."""
        power = powers(w, u, self.tokens[0], self.away)
        return power.masked_fill((self.away < 0)[..., None], -torch.inf) if self.causal else power

    def side(self, ahead: bool) -> tuple[Tokens, Tensor]:
        """The chunk's tokens with the state's on one side, and how much each has decayed on the other."""
        keys, values, counts = self.tokens
        steps = torch.arange(len(self.own) + 1, device=keys.device)
        if ahead:
            return (keys[:, 1:], values[:, 1:], counts[:, 1:]), steps
        kept = slice(0, len(steps))
        return (keys[:, kept], values[:, kept], counts[:, kept]), steps.flip(0)


class _Totals:
    """Gradients by w, u, k and v, added up chunk by chunk."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
        self.w, self.u = w, u
        self.gradients: Gradients = (
            torch.zeros_like(w),
            torch.zeros_like(u),
            k.new_zeros(k.shape),
            v.new_zeros(v.shape),
        )

    def add_outputs(self, chunk: _Chunk, dy: Tensor) -> Tensor:
        """From the gradient by the outputs to that by numerators and counts (B, 2, I, C) of all tokens."""
        power = chunk.powers(self.w, self.u)
        numerator, denominator, _ = sums(power, chunk.tokens)
        slope = dy[:, chunk.part] / denominator
        decays = (chunk.away.abs() - 1).clamp(min=0)
        by_power, by_token = _through_sums(power, chunk.tokens, slope, -slope * numerator / denominator)
        self.gradients[1].add_((by_power * (chunk.away == 0)[..., None]).sum((0, 1, 2)))
        self._add(chunk, slice(1, 1 + len(chunk.own)), by_power, by_token, decays)
        return by_token

    def add_state(self, chunk: _Chunk, by_state: Tensor, ahead: bool = False) -> Tensor:
        """From the gradient (B, 2, C) by the state on one side of the chunk to that on the other."""
        tokens, decays = chunk.side(ahead)
        power = (tokens[0] - decays[:, None] * self.w)[:, None]
        by_power, by_token = _through_sums(power, tokens, *by_state.split(1, 1))
        own = slice(0, -1) if ahead else slice(1, None)
        self._add(chunk, own, by_power, by_token, decays[None])
        return by_token[:, :, -1 if ahead else 0]

    def _add(self, chunk: _Chunk, own: slice, by_power: Tensor, by_token: Tensor, decays: Tensor) -> None:
        by_w, _, by_k, by_v = self.gradients
        by_w -= (by_power * decays[..., None]).sum((0, 1, 2))
        by_k[:, chunk.part] += by_power.sum(1)[:, own]
        by_v[:, chunk.part] += by_token[:, 0, own]


def _through_sums(power: Tensor, tokens: Tokens, by_above: Tensor, by_below: Tensor) -> tuple[Tensor, Tensor]:
    """From gradients by the results of `sums` to those by power, and by values and counts (B, 2, I, C)."""
    _, values, counts = tokens
    weight = torch.exp(power - power.amax(2, keepdim=True))
    by_values, by_counts = weight * by_above[:, :, None], weight * by_below[:, :, None]
    by_power = by_values * values[:, None] + by_counts * counts[:, None]
    return by_power, torch.stack([by_values.sum(1), by_counts.sum(1)], 1)
