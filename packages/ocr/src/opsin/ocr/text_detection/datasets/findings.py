"""Annotations as they are read: texts of a file, and what to do about those that are broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from mmengine.logging import print_log
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.ocr.text_detection.polygons import bounding_box, repair_polygon

Instance = dict[str, Any]
"""`polygon` (corners, 2) float32, `text`, and `ignore`, whether it is a don't-care region."""


@dataclass
class Findings:
    """Decides on faults of the annotations of one split, and remembers them.

    A fault is a `UserError` that names file and line, unless faults are to be collected, as a checker does.
    Broken polygons (no area, fewer than three corners, outside the picture) are such faults unless they are
    don't-care regions or `drop` says that they go; what goes and what was repaired is counted, and `report`
    logs the counts.

    Args:
        drop: whether texts with a broken polygon are dropped.
        collect: whether faults are collected in `faults`.
    """

    drop: bool = False
    collect: bool = False
    faults: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def refuse(self, where: str, what: str, mend: str = "") -> None:
        """Notes or raises a fault.

        Raises:
            UserError: the fault, unless faults are collected.
        """
        if not self.collect:
            raise UserError(f"{where}: {what}", mend)
        self.faults.append(f"{where}: {what}")

    def instance(
        self, where: str, polygon: NDArray[Any], text: str, *, ignore: bool, size: tuple[int, int] | None
    ) -> Iterator[Instance]:
        """The text with a sound polygon, or nothing when it is refused or dropped.

        Args:
            where: file and line.
            polygon: (corners, 2) pixels.
            text: the transcription.
            ignore: whether it is a don't-care region.
            size: width and height of the picture, if known.

        Raises:
            UserError: when the polygon is broken; see the class.
        """
        try:
            sound = repair_polygon(polygon)
            if size is not None and _outside(sound, size):
                raise ValueError(f"it lies outside the picture of {size[0]} x {size[1]} pixels")
        except ValueError as error:
            if ignore or self.drop:
                self.dropped.append(where)
            else:
                mend = "mend the line, or set drop_broken=True in the dataset"
                self.refuse(where, f"broken polygon of {text!r}: {error}", mend)
            return
        if not shapely.Polygon(polygon).is_valid:
            self.repaired.append(where)
        yield {"polygon": sound, "text": text, "ignore": ignore}

    def report(self) -> None:
        """Logs a warning for each kind of change."""
        for what, places in (("repaired", self.repaired), ("dropped", self.dropped)):
            if places:
                line = f"{len(places)} broken polygon(s) {what}, the first at {places[0]}"
                print_log(line, logger="current", level=logging.WARNING)


def _outside(polygon: NDArray[Any], size: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = bounding_box(polygon)
    return bool(x1 >= size[0] or y1 >= size[1] or x2 <= 0 or y2 <= 0)


def text_lines(path: Path, findings: Findings) -> Iterator[tuple[str, str]]:
    """Place (`FILE line N`) and content of every line of a UTF-8 file that is not blank; a BOM is skipped."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        findings.refuse(str(path), f"cannot be read ({error.strerror})")
        return
    except UnicodeDecodeError as error:
        findings.refuse(str(path), f"is not UTF-8 text ({error.reason} at byte {error.start})")
        return
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            yield f"{path} line {number}", line.strip()


def numbers(fields: Sequence[str], where: str, findings: Findings) -> NDArray[np.float64] | None:
    """The fields as numbers, or None when one is not and faults are collected."""
    try:
        return np.array([float(value) for value in fields])
    except ValueError:
        findings.refuse(where, f"{', '.join(fields)!r} are not numbers")
        return None


def corners(
    fields: Sequence[str], where: str, findings: Findings, count: int | None = None
) -> NDArray[np.float64] | None:
    """Fields x1, y1, x2, y2, … as corners (N, 2), or None when they are none and faults are collected.

    Args:
        fields: the numbers as text.
        where: file and line.
        findings: what takes the faults.
        count: how many numbers there have to be; otherwise an even number of at least six.
    """
    wrong = len(fields) != count if count is not None else len(fields) % 2 or len(fields) < 6
    if wrong:
        expected = f"{count}" if count is not None else "x and y of at least three corners"
        findings.refuse(where, f"{len(fields)} coordinates instead of {expected}")
        return None
    values = numbers(fields, where, findings)
    return None if values is None else values.reshape(-1, 2)
