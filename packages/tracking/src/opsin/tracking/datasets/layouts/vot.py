"""VOT challenges.

    list.txt   <sequence>/color/00000001.jpg   <sequence>/groundtruth.txt

A row of truth is a rectangle (4 numbers), a polygon (8 or more), or from 2020 on a mask, `m` with the offset
and size of its box and run lengths of zeros and ones. Polygons and masks become the boxes around them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import list_images
from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import Boxes, VideoSequence, read_lines, sequence


def read(root: Path, split: str) -> list[VideoSequence]:
    """The sequences that `list.txt` names; the only split is `test`.

    Raises:
        UserError: for another split, missing files, or a row that is no region.
    """
    if split != "test":
        raise UserError(f"VOT has no split {split!r}", "use test")
    return [_read_one(root / name) for name in read_lines(root / "list.txt")]


def _read_one(folder: Path) -> VideoSequence:
    pictures = folder / "color" if (folder / "color").is_dir() else folder
    truth = folder / "groundtruth.txt"
    boxes = np.array([_row(line, truth, i) for i, line in enumerate(read_lines(truth), 1)])
    return sequence(folder.name, list_images(pictures), boxes)


def _row(line: str, path: Path, number: int) -> Boxes:
    try:
        return region_box(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {line[:40]!r} is not a region ({error})") from None


def region_box(line: str) -> Boxes:
    """The box x, y, w, h around a region of truth; NaN for an empty mask.

    Raises:
        ValueError: if the text is none.
    """
    if line.startswith("m"):
        return _mask_box(mask(line))
    values = np.array([float(value) for value in line.split(",")])
    if len(values) == 4:
        return values
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers")
    low, high = values.reshape(-1, 2).min(0), values.reshape(-1, 2).max(0)
    return np.concatenate((low, high - low))


def mask(line: str) -> tuple[NDArray[np.bool_], int, int]:
    """The mask of a row `m x,y,w,h,zeros,ones,zeros,…`, (h, w), and where its upper left corner lies."""
    x, y, w, h, *runs = (int(value) for value in line[1:].split(","))
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    if len(values) > w * h:
        raise ValueError(f"{len(values)} pixels in a mask of {w} x {h}")
    full = np.zeros(w * h, bool)
    full[: len(values)] = values
    return full.reshape(h, w), x, y


def _mask_box(placed: tuple[NDArray[np.bool_], int, int]) -> Boxes:
    pixels, x, y = placed
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return np.full(4, np.nan)
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return np.array([x + columns[0], y + rows[0], width, height], np.float64)
