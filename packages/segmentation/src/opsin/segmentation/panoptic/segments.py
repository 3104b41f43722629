"""Panoptic maps as COCO's panoptic format has them: one colour a segment, which is its id.

Colours are chosen for people: stuff has the colour of its class, and every thing a shade of it, so the PNG
can be looked at and read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

INSTANCE_OFFSET = 1000  # of panoptic maps, as mmdet has them: label + 1000 · instance
SHADES = 32  # the most that a shade differs from its class's colour, in each channel
LATER_SHADES = 96  # the same once TRIES shades of a class were found taken
TRIES = 200


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map.

    Args:
        value: of its pixels in the panoptic map.
        label: its class.
        instance: which thing it is, from 1; 0 for stuff.
        colour: red, green, blue.
        area: pixels.
        bbox: left, top, width, height in pixels.
    """

    value: int
    label: int
    instance: int
    colour: tuple[int, int, int]
    area: int
    bbox: tuple[int, int, int, int]

    @property
    def id(self) -> int:
        """COCO's id of the colour."""
        red, green, blue = self.colour
        return red + 256 * green + 65536 * blue


def segments_of(panoptic: NDArray[Any], classes: int, palette: Sequence[Sequence[int]]) -> list[Segment]:
    """The segments of a panoptic map (H, W), in ascending order of their values.

    Args:
        panoptic: label + 1000 · instance; a label of `classes` is no segment.
        classes: how many there are.
        palette: a colour each.
    """
    found: list[Segment] = []
    taken: set[tuple[int, int, int]] = {(0, 0, 0)}  # black is id 0, no segment
    values, numbered = np.unique(panoptic, return_inverse=True)
    numbered = numbered.reshape(panoptic.shape) + 1
    areas = np.bincount(numbered.ravel())[1:].tolist()
    for value, area, (rows, columns) in zip(values.tolist(), areas, find_objects(numbered), strict=True):
        label, instance = value % INSTANCE_OFFSET, value // INSTANCE_OFFSET
        if label >= classes:
            continue
        colour = _free_colour(palette[label], taken, value)
        taken.add(colour)
        bbox = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        found.append(Segment(value, label, instance, colour, area, bbox))
    return found


def _free_colour(wanted: Sequence[int], taken: set[tuple[int, int, int]], seed: int) -> tuple[int, int, int]:
    """The colour itself if it is free, else a shade of it; the same for the same seed."""
    colour = (int(wanted[0]), int(wanted[1]), int(wanted[2]))
    rng = np.random.default_rng(seed)
    tries = 0
    while colour in taken:
        width = SHADES if tries < TRIES else LATER_SHADES
        red, green, blue = np.clip(np.asarray(wanted) + rng.integers(-width, width + 1, 3), 0, 255).tolist()
        colour, tries = (red, green, blue), tries + 1
    return colour


def colours(panoptic: NDArray[Any], segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """(H, W, 3): every segment in its colour, all else black."""
    table = np.zeros((int(panoptic.max()) + 1, 3), np.uint8)
    for segment in segments:
        table[segment.value] = segment.colour
    painted: NDArray[np.uint8] = table[panoptic]
    return painted


def segments_info(segments: Sequence[Segment], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO's `segments_info`; `category_ids` are the numbers of the classes."""
    return [
        {
            "id": segment.id,
            "category_id": int(category_ids[segment.label]),
            "area": segment.area,
            "bbox": list(segment.bbox),
            "iscrowd": 0,
        }
        for segment in segments
    ]
