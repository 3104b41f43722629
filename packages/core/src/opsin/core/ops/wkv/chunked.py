"""WKV in vectorised PyTorch, for any device: what runs where there is neither Numba nor Triton.

The definition, `CHUNK` tokens at a time, between the state of all tokens before the chunk and, where it goes
both ways, that of all tokens after it. Time and memory are linear in the length. The backward pass keeps the
states between chunks and differentiates the definition of one chunk after the other.

Every tensor is of the computing type: w, u (C,), k, v (B, T, C), states (B, 3, C).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from opsin.core.ops.wkv.reference import advanced, initial_state, joined, powers, sums, wkv_reference

CHUNK = 16  # tokens that see each other pair by pair

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]  # by w, u, k, v


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, T, C) of the causal recurrence, and the state after it."""
    y = v.new_empty(v.shape)
    for part in _chunks(k):
        y[:, part], state = wkv_reference(w, u, k[:, part], v[:, part], state)
    return y, state.clone()


def backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, dy: Tensor) -> Gradients:
    """Gradients of `forward`'s output by w, u, k and v."""
    totals, before = _Totals(w, u, k, v), _states(w, k, v, state)
    by_state = torch.zeros_like(state)
    for part, given in zip(reversed(_chunks(k)), reversed(before), strict=True):
        (by_state,) = totals.add(wkv_reference, part, (given,), (dy[:, part], by_state))
    return totals.gradients


def bi_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Output (B, T, C) of the bidirectional sums."""
    y = v.new_empty(v.shape)
    for part, past, future in zip(_chunks(k), *_both_states(w, k, v), strict=True):
        y[:, part], _ = _between(w, u, k[:, part], v[:, part], past, future)
    return y


def bi_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> Gradients:
    """Gradients of `bi_forward` by w, u, k and v."""
    totals, chunks = _Totals(w, u, k, v), _chunks(k)
    pasts, futures = _both_states(w, k, v)
    by_past = by_future = torch.zeros_like(initial_state(k))
    by_futures = []
    for part, past, future in zip(reversed(chunks), reversed(pasts), reversed(futures), strict=True):
        by_past, seen = totals.add(_between, part, (past, future), (dy[:, part], by_past))
        by_futures.append(seen)
    for part, future, seen in zip(chunks[1:], futures[1:], reversed(by_futures[1:]), strict=True):
        (by_future,) = totals.add(_retreated, part, (future,), (by_future + seen,))
    return totals.gradients


def _chunks(k: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, k.shape[1], CHUNK)]


def _states(w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> list[Tensor]:
    """The state before each chunk."""
    states = []
    for part in _chunks(k):
        states.append(state)
        state = advanced(w, k[:, part], v[:, part], state)
    return states


def _both_states(w: Tensor, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """For each chunk the state of the tokens before it, and that of the tokens after it."""
    future, futures = initial_state(k), []
    for part in reversed(_chunks(k)):
        futures.append(future)
        (future,) = _retreated(w, w, k[:, part], v[:, part], future)
    return _states(w, k, v, initial_state(k)), futures[::-1]


def _retreated(w: Tensor, u: Tensor, k: Tensor, v: Tensor, future: Tensor) -> tuple[Tensor]:
    """The state of a chunk and all tokens after it, from that of the tokens after it."""
    return (advanced(w, k.flip(1), v.flip(1), future),)


def _between(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, past: Tensor, future: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs of a chunk's tokens, and the state of the chunk and all tokens before it."""
    before, after = joined(past, k, v), joined(future, k[:, :0], v[:, :0])
    keys, values, counts = (torch.cat(pair, 1) for pair in zip(before, after, strict=True))
    places = torch.arange(-1, k.shape[1] + 1, device=k.device)
    numerator, denominator, _ = sums(powers(w, u, keys, places, places[1:-1]), values, counts)
    return numerator / denominator, advanced(w, k, v, past)


class _Totals:
    """Gradients by w, u, k and v, added up over chunks."""

    def __init__(self, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
        self.tensors = (w, u, k, v)
        self.gradients: Gradients = (
            torch.zeros_like(w),
            torch.zeros_like(u),
            k.new_zeros(k.shape),
            v.new_zeros(v.shape),
        )

    def add(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        part: slice,
        states: tuple[Tensor, ...],
        given: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Adds the gradients of `function(w, u, k, v, *states)` at a chunk; returns those by the states.

        `given` are the gradients by the function's results.
        """
        w, u, k, v = self.tensors
        # torch.func and not torch.autograd: a registered op's body runs below autograd.
        _, differentiate = torch.func.vjp(function, w, u, k[:, part], v[:, part], *states)
        found = differentiate(given)
        by_w, by_u, by_k, by_v = self.gradients
        for total, gradient in zip((by_w, by_u, by_k[:, part], by_v[:, part]), found, strict=False):
            total += gradient
        return found[4:]
