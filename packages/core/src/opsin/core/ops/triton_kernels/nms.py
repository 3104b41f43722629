"""Greedy suppression on a GPU: all pairs first, sixty-four of them a word; then one program walks the words.

A word holds, for one box and sixty-four boxes of lower score, a bit for each that it overlaps too much.
Within a word's boxes the greedy choice is found by repetition: whom none of those that stay suppresses stays;
after n rounds the first n are right, and usually a few rounds change nothing any more. Arithmetic is rounded
as the definition's, operation by operation, or other boxes would be kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops.triton_kernels import launch

WORD = 64  # bits
REACH = 512  # better boxes that the walk looks back at together


@triton.jit
def _edges(edges, box, count):
    """Left, top, right and bottom of boxes out of (4, count)."""
    inside = box < count
    left, top = tl.load(edges + box, inside, 0.0), tl.load(edges + count + box, inside, 0.0)
    return (
        left,
        top,
        tl.load(edges + 2 * count + box, inside, 0.0),
        tl.load(edges + 3 * count + box, inside, 0.0),
    )


@triton.jit
def _divided(x, y):
    """The quotient, rounded to nearest, which Triton's own is for doubles alone."""
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:  # not redundant: Triton checks what follows a return
        return x / y


@triton.jit
def _overlap_kernel(edges, threshold, words, count, offset, WORD: tl.constexpr):
    if tl.program_id(1) >= tl.program_id(0):
        better, bit = tl.program_id(0) * WORD + tl.arange(0, WORD), tl.arange(0, WORD)
        worse = tl.program_id(1) * WORD + bit
        left, top, right, bottom = _edges(edges, better, count)
        area = ((right - left + offset) * (bottom - top + offset))[:, None]
        others_left, others_top, others_right, others_bottom = _edges(edges, worse, count)
        others = ((others_right - others_left + offset) * (others_bottom - others_top + offset))[None, :]
        width = tl.minimum(right[:, None], others_right[None, :]) - tl.maximum(
            left[:, None], others_left[None, :]
        )
        height = tl.minimum(bottom[:, None], others_bottom[None, :]) - tl.maximum(
            top[:, None], others_top[None, :]
        )
        inter = tl.maximum(width + offset, 0.0) * tl.maximum(height + offset, 0.0)
        hit = _divided(inter, area + others - inter) > tl.load(threshold)
        hit = hit & (worse[None, :] > better[:, None]) & (worse < count)[None, :]
        word = tl.sum(
            hit.to(tl.int64) << bit[None, :].to(tl.int64), axis=1
        )  # distinct bits: the sum is their union
        tl.store(words + tl.program_id(1).to(tl.int64) * count + better, word, mask=better < count)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _walk_kernel(words, keep, count, WORD: tl.constexpr, REACH: tl.constexpr):
    bit, back = tl.arange(0, WORD), tl.arange(0, REACH)
    column = words
    for first in range(0, count, WORD):
        gone = tl.zeros((REACH,), tl.int64)
        for start in range(0, first, REACH):
            better = start + back
            stays = tl.load(keep + better, mask=better < first, other=0) != 0
            gone |= tl.load(column + better, mask=stays, other=0)
        free = 1 - ((tl.reduce(gone, 0, _either) >> bit.to(tl.int64)) & 1).to(tl.int32)
        own = tl.load(column + first + bit, mask=first + bit < count, other=0)
        hits = ((own[:, None] >> bit[None, :].to(tl.int64)) & 1).to(tl.int32)
        stay, changed = free, 1
        while changed > 0:
            after = free * (1 - tl.max(hits * stay[:, None], axis=0))
            changed = tl.max(tl.abs(after - stay), axis=0)
            stay = after
        tl.store(keep + first + bit, stay.to(tl.int8), mask=first + bit < count)
        column += count
        tl.debug_barrier()  # other threads of the program read what this one stored


def suppress(edges: Tensor, threshold: float, offset: int) -> Tensor:
    """Which boxes stay.

    Args:
        edges: (4, N) left, top, right and bottom edges, best box first.
        threshold: IoU above which a box goes.
        offset: added to every width and height.

    Returns:
        (N,) bool.
    """
    count = edges.shape[1]
    blocks = triton.cdiv(count, WORD)
    words = torch.empty(blocks, count, dtype=torch.int64, device=edges.device)
    keep = torch.empty(count, dtype=torch.int8, device=edges.device)
    limit = torch.full((1,), threshold, dtype=edges.dtype, device=edges.device)
    launch(
        _overlap_kernel,
        (blocks, blocks),
        edges,
        limit,
        words,
        count,
        offset,
        WORD=WORD,
        enable_fp_fusion=False,
    )
    launch(_walk_kernel, (min(1, blocks),), words, keep, count, WORD=WORD, REACH=REACH)
    return keep.bool()
