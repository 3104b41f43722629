"""Pictures of panoptic maps: every segment in its own shade over the photograph, and a legend beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.segmentation.panoptic.segments import Segment
from opsin.segmentation.visualization import overlay, with_legend

Rgb = NDArray[np.uint8]


def draw_panoptic(
    image: Rgb,
    panoptic: NDArray[Any],
    segments: Sequence[Segment],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Rgb:
    """Overlay and legend side by side, (H', W', 3); white borders part the segments.

    Args:
        image: RGB uint8 (H, W, 3).
        panoptic: (H, W) label + 1000 · instance.
        segments: of the map.
        classes: their names.
        palette: their colours.
    """
    table = np.full(int(panoptic.max()) + 1, len(segments))
    table[[segment.value for segment in segments]] = np.arange(len(segments))
    tinted = overlay(image, table[panoptic], [segment.colour for segment in segments])
    areas: dict[int, int] = {}
    for segment in segments:
        areas[segment.label] = areas.get(segment.label, 0) + segment.area
    names = {label: _counted(label, segments, classes) for label in areas}
    by_area = sorted(areas, key=lambda label: -areas[label])
    return with_legend(
        tinted,
        {names[label]: areas[label] for label in by_area},
        {names[label]: palette[label] for label in by_area},
    )


def _counted(label: int, segments: Sequence[Segment], classes: Sequence[str]) -> str:
    things = sum(segment.label == label and segment.instance > 0 for segment in segments)
    return f"{classes[label]} x {things}" if things else classes[label]
