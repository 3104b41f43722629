"""Prediction in overlapping tiles whose results are faded into one another, for networks of any kind.

Where a network reads at most `margin` pixels beyond a pixel, the result equals the untiled one up to float
noise. Where every pixel depends on the whole picture (instance norm, averages, attention among channels) no
tile can know it: then each pixel is a weighted mean of what its tiles say, and weights change by at most 1 /
(overlap - 2·margin) from one pixel to the next, so no edge is steeper than that share of the tiles'
difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import TASK_UTILS

Region: TypeAlias = tuple[slice, slice]  # rows, columns
Progress: TypeAlias = Callable[[int, int], None]  # called with the tiles done, and all tiles


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class BlendedTiling:
    """Tiles of one size, as evenly spread as they go; a side that is shorter than a tile is taken whole.

    Args:
        size: side of a tile in pixels.
        overlap: the least that neighbours share.
        margin: pixels at the inner borders of a tile that count nothing.

    Raises:
        UserError: if the overlap leaves nothing to fade in, or a tile nothing besides its overlaps.
    """

    size: int = 256
    overlap: int = 64
    margin: int = 0

    def __post_init__(self) -> None:
        if not 2 * self.margin < self.overlap < self.size:
            raise UserError(
                f"tiles of {self.size} pixels have an overlap of {self.overlap}, a margin of {self.margin}",
                "the overlap must be more than two margins and less than the tile",
            )

    def regions(self, height: int, width: int) -> list[Region]:
        """The tiles of a picture, row by row."""
        rows, columns = self._spans(height), self._spans(width)
        return [(row, column) for row in rows for column in columns]

    def _spans(self, length: int) -> list[slice]:
        if length <= self.size:
            return [slice(0, length)]
        count = 1 - (self.size - length) // (self.size - self.overlap)
        starts = np.linspace(0, length - self.size, count).round().astype(int)
        return [slice(int(start), int(start) + self.size) for start in starts]

    def restore(
        self,
        run: Callable[[Region], Tensor],
        height: int,
        width: int,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """The whole result (C, H, W).

        Args:
            run: gives a region's result (C, h, w).
            height: of the picture.
            width: of the picture.
            progress: called after every tile.
        """
        regions = self.regions(height, width)
        if len(regions) == 1:
            whole = run(regions[0]).float().cpu().numpy()
            if progress is not None:
                progress(1, 1)
            return whole
        total = None
        weights = np.zeros((height, width), np.float32)
        for done, region in enumerate(regions, 1):
            pixels = run(region).float().cpu().numpy()
            if total is None:
                total = np.zeros((len(pixels), height, width), np.float32)
            weight = self._weight(region, height, width)
            total[(slice(None), *region)] += weight * pixels
            weights[region] += weight
            if progress is not None:
                progress(done, len(regions))
        assert total is not None  # there is at least one region
        total /= weights
        return total

    def _weight(self, region: Region, height: int, width: int) -> NDArray[np.float32]:
        rows, columns = (
            self._ramp(span, length) for span, length in zip(region, (height, width), strict=True)
        )
        return np.outer(rows, columns).astype(np.float32)

    def _ramp(self, span: slice, length: int) -> NDArray[np.float64]:
        """Weights along one side: 0 in the margin, rising over the overlap, 1 at the picture's borders."""
        places = np.arange(span.start, span.stop) + 0.5
        rise = self.overlap - 2 * self.margin
        weight = np.ones(len(places))
        if span.start > 0:
            weight = np.minimum(weight, (places - span.start - self.margin) / rise)
        if span.stop < length:
            weight = np.minimum(weight, (span.stop - places - self.margin) / rise)
        return weight.clip(0, 1)
