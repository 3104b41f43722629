"""Expected average overlap (EAO) of the VOT challenges, from 2020 on with several starts a sequence.

A tracker is started at anchors and runs to the sequence's end, forwards or backwards. It has failed at the
first frame from which on the overlap stays at or below 0.1 for 10 frames; from there its overlap is 0. The
expected overlap of a run of n frames is the mean, over runs that failed or are at least n long, of the mean
overlap of the first n frames; EAO is its mean over the benchmark's typical lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError

FAILED_OVERLAP, FAILED_FRAMES = 0.1, 10


@dataclass(frozen=True)
class VotScores:
    """EAO; accuracy, the mean overlap before failure; robustness, the share of frames before failure."""

    eao: float
    accuracy: float
    robustness: float


def failure(
    overlaps: NDArray[Any], *, threshold: float = FAILED_OVERLAP, patience: int = FAILED_FRAMES
) -> int:
    """The frame at which a run has failed, or its length.

    Args:
        overlaps: of one run, (N,); NaN, where the target cannot be seen, is no failure.
        threshold: overlaps up to this count as lost.
        patience: as many lost frames in a row are a failure.
    """
    lost = 0
    for frame, overlap in enumerate(overlaps):
        lost = lost + 1 if overlap <= threshold else 0
        if lost == patience:
            return frame - patience + 1
    return len(overlaps)


def vot_scores(runs: Sequence[NDArray[Any]], lengths: tuple[int, int]) -> VotScores:
    """EAO, accuracy and robustness of a tracker.

    Args:
        runs: overlaps of every run, (N_i,) each.
        lengths: shortest and longest run that EAO averages over, both included (VOT2020: 115 to 755).

    Raises:
        UserError: if there is no run, or none that tells anything of these lengths.
    """
    if not runs:
        raise UserError("EAO needs at least one run")
    ends = [failure(run) for run in runs]
    expected = expected_overlaps(runs, ends, lengths[1])[lengths[0] - 1 :]
    expected = expected[np.isfinite(expected)]
    if not len(expected):
        raise UserError(f"no run is {lengths[0]} frames long or failed", "give shorter lengths for EAO")
    before = [np.nan_to_num(run[:end]) for run, end in zip(runs, ends, strict=True)]
    frames = np.concatenate(before)
    accuracy = float(frames.mean()) if len(frames) else 0.0
    return VotScores(float(expected.mean()), accuracy, sum(ends) / sum(len(run) for run in runs))


def expected_overlaps(runs: Sequence[NDArray[Any]], ends: Sequence[int], longest: int) -> NDArray[np.float64]:
    """The expected overlap of runs of 1, 2, … `longest` frames; NaN where no run tells it."""
    total, count = np.zeros(longest), np.zeros(longest)
    for run, end in zip(runs, ends, strict=True):
        told = np.zeros(longest)
        kept = np.nan_to_num(run[:end])[:longest]
        told[: len(kept)] = kept
        known = longest if end < len(run) else min(len(run), longest)
        total[:known] += (np.cumsum(told) / np.arange(1, longest + 1))[:known]
        count[:known] += 1
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
