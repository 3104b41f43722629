"""Probability tables of the entropy coder: integers that sum to 65536, the same on every machine.

A table has one entry a symbol and a last one, `tail`, for all symbols that it does not list. Gaussian tables
are constants, whose digest is checked; tables of learned distributions come from elementwise IEEE arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.restoration.compression.bitstream import ieee
from opsin.restoration.compression.fixed_point.arithmetic import ONE, check_digest
from opsin.restoration.compression.models.segpic.entropy import EntropyBottleneck

TOTAL = 1 << 16
SCALES = 64
LEAST_SCALE, LARGEST_SCALE = 0.11, 256.0
TAIL_QUANTILE = 6.109410204869  # of the standard normal at 1 - 1e-9 / 2
LONGEST_SIDE = 4096  # symbols that a learned table lists on either side of the median

_GAUSSIAN_DIGEST = "9f6a63cf07f93e907a3b80524345e737f10a6c0ec9f50a7f547d806e7a348c92"


@dataclass(frozen=True)
class Tables:
    """Tables by number.

    Attributes:
        counts: of each table, one integer from 1 a symbol and one for the tail; they sum to 65536.
        offsets: of each table, the first symbol that it lists.
    """

    counts: list[NDArray[np.int64]]
    offsets: list[int]

    def __len__(self) -> int:
        return len(self.counts)


def quantised(mass: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integers from 1 that sum to 65536, in proportion to `mass`; the last one takes what rounding leaves.

    An empty entry takes one from the smallest that has more than one, in the order of the entries.
    """
    counts = np.floor(mass * TOTAL + 0.5).astype(np.int64)
    counts = counts * TOTAL // counts.sum()
    counts[-1] += TOTAL - counts.sum()
    for empty in np.flatnonzero(counts == 0):
        richer = np.where(counts > 1, counts, TOTAL + 1)
        counts[np.argmin(richer)] -= 1
        counts[empty] += 1
    return counts


def scale_table() -> list[float]:
    """The 64 standard deviations for which there are Gaussian tables, in equal ratios from 0.11 to 256."""
    return [_scale(index) for index in range(SCALES)]


def scale_edges() -> list[float]:
    """The largest scale for which each table but the last is taken: that of the nearest in ratio.

    The published coder takes the next larger table. As tables lie 13 % apart, its files deviate from what the
    likelihoods say by up to 2 %; with the nearest tables it is a tenth of that.
    """
    return [_scale(index + 0.5) for index in range(SCALES - 1)]


def _scale(index: float) -> float:
    low, high = math.log(LEAST_SCALE), math.log(LARGEST_SCALE)
    return math.exp(low + (high - low) * index / (SCALES - 1))


def gaussian_mass(scale: float) -> NDArray[np.float64]:
    """Mass of the integers from -c to c and of all others, c = ceil(6.109 · scale)."""
    side = math.ceil(scale * TAIL_QUANTILE)
    half = [_normal_cdf((0.5 - d) / scale) - _normal_cdf((-0.5 - d) / scale) for d in range(side + 1)]
    tail = 2 * _normal_cdf((-0.5 - side) / scale)
    return np.array([*half[:0:-1], *half, tail])


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@cache
def gaussian_tables() -> Tables:
    """The tables of the Gaussians of `scale_table`.

    Raises:
        UserError: if this machine's C library gives other tables than every other's.
    """
    counts = [quantised(gaussian_mass(scale)) for scale in scale_table()]
    contents = [c.astype("<i4").tobytes() for c in counts]
    contents.append(np.array(scale_thresholds(), "<i4").tobytes())
    check_digest("Gaussian probabilities", contents, _GAUSSIAN_DIGEST)
    return Tables(counts, [-(len(c) // 2 - 1) for c in counts])


def scale_thresholds() -> list[int]:
    """`scale_edges` in fixed point."""
    return [math.floor(scale * ONE) for scale in scale_edges()]


def bottleneck_tables(bottleneck: EntropyBottleneck) -> Tables:
    """One table a channel of a learned distribution; symbols count from the median.

    Raises:
        UserError: if the distribution holds numbers that are not finite.
    """
    quantiles = bottleneck.quantiles.detach().cpu().numpy().astype(np.float64)[:, 0]
    layers = _layers(bottleneck)
    arrays = [quantiles, *(a for layer in layers for a in layer if a is not None)]
    if not all(np.isfinite(a).all() for a in arrays):
        raise UserError("the model's learned distributions are not finite", "train it with a smaller step")
    low, median, high = quantiles.T
    below = np.clip(np.ceil(median - low), 0, LONGEST_SIDE).astype(np.int64)
    above = np.clip(np.ceil(high - median), 0, LONGEST_SIDE).astype(np.int64)
    longest = int((below + above + 1).max())
    # edges of bins, from half a symbol below each channel's first, over the longest channel's range
    edges = (median - below - 0.5)[:, None] + np.arange(longest + 1)
    logits = _logits(layers, edges)
    lower, upper = logits[:, :-1], logits[:, 1:]
    sign = -np.sign(lower + upper)
    mass = np.abs(ieee.sigmoid(sign * upper) - ieee.sigmoid(sign * lower))
    tails = ieee.sigmoid(lower[:, 0]) + ieee.sigmoid(-upper[:, -1])
    lengths = below + above + 1
    counts = [
        quantised(np.append(row[:length], tail))
        for row, length, tail in zip(mass, lengths, tails, strict=True)
    ]
    return Tables(counts, [-int(side) for side in below])


Layers = list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]]


def _layers(bottleneck: EntropyBottleneck) -> Layers:
    """Matrices, biases and factors as float64, the positive matrices and the bounded factors themselves."""
    layers: Layers = []
    for matrix, bias, factor in bottleneck.layers():
        m, b = (p.detach().cpu().numpy().astype(np.float64) for p in (matrix, bias))
        f = None if factor is None else ieee.tanh(factor.detach().cpu().numpy().astype(np.float64))
        layers.append((ieee.softplus(m), b, f))
    return layers


def _logits(layers: Layers, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of the cumulative at `value` (C, K), summed in the order of the channels' inner width."""
    inner = value[:, None]
    for matrix, bias, factor in layers:
        total = np.broadcast_to(bias, (*bias.shape[:2], inner.shape[2]))
        for source in range(matrix.shape[2]):
            term = matrix[:, :, source, None] * inner[:, None, source]
            total = total + term
        inner = total
        if factor is not None:
            bent = factor * ieee.tanh(inner)
            inner = inner + bent
    return inner[:, 0]
