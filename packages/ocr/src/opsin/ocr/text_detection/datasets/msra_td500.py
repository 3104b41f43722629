"""MSRA-TD500: lines of Chinese and English text at any angle, as turned rectangles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.ocr.text_detection.datasets.findings import Findings, Instance, numbers, text_lines
from opsin.ocr.text_detection.datasets.text_dataset import Place, TextDataset
from opsin.registry import DATASETS

FIELDS = "id, difficulty, x, y, width, height, angle"


@DATASETS.register_module()
class MSRATD500(TextDataset):
    """MSRA-TD500: `train/IMG_0030.JPG` and `train/IMG_0030.gt`; the same in `test`.

    A line is `id difficulty x y width height angle`: an upright rectangle with its top left corner at (x, y),
    to be turned around its centre by the angle in radians, clockwise as seen. There are no transcriptions;
    lines of difficulty 1 are don't care. See `TextDataset`.
    """

    PLACES: ClassVar[dict[str, tuple[Place, ...]]] = {
        split: (Place(split, split, ("{stem}.gt",)),) for split in ("train", "test")
    }
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 300, "test": 200}

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The lines in a `.gt` file."""
        ids = set()
        for where, line in text_lines(path, findings):
            fields = line.split()
            if len(fields) != 7:
                findings.refuse(where, f"{len(fields)} numbers instead of {FIELDS}")
                continue
            if fields[0] in ids:
                findings.refuse(where, f"id {fields[0]} is given twice", "number the lines anew")
                continue
            ids.add(fields[0])
            values = numbers(fields, where, findings)
            if values is not None:
                rectangle = turned_rectangle(*values[2:])
                yield from findings.instance(where, rectangle, "", ignore=values[1] == 1, size=size)


def turned_rectangle(x: float, y: float, width: float, height: float, angle: float) -> NDArray[np.float64]:
    """Corners (4, 2) of the rectangle with top left corner (x, y), turned by `angle` radians, clockwise."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])  # rows times it, y pointing down
    return half @ turn + (x + width / 2, y + height / 2)
