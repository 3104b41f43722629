"""Total-Text: words as polygons, many of them curved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from opsin.ocr.text_detection.datasets.findings import Findings, Instance, numbers, text_lines
from opsin.ocr.text_detection.datasets.text_dataset import Place, TextDataset
from opsin.registry import DATASETS

NAMES = ("poly_gt_{stem}.mat", "poly_gt_{stem}.txt", "gt_{stem}.mat", "gt_{stem}.txt")
TABLES = ("polygt", "gt")
"""The variable in a .mat file, in its newer and its older release."""

LINE = re.compile(r"x: \[\[(?P<x>.*?)\]\], y: \[\[(?P<y>.*?)\]\](?P<rest>.*)")
ORIENTATION = re.compile(r"ornt: \[(?:u?['\"](?P<value>.*?)['\"])?\]")
TRANSCRIPTION = re.compile(r"transcriptions: \[(?:u?(?P<quote>['\"])(?P<value>.*)(?P=quote))?\]")
DONT_CARE = "#"


@DATASETS.register_module()
class TotalText(TextDataset):
    """Total-Text: `Images/Train/img11.jpg` and `Groundtruth/Polygon/Train/poly_gt_img11.mat` or `.txt`.

    The columns of a .mat file's table are `x:`, the x of the corners, `y:`, their y, transcription and
    orientation (`c` curved, `h` horizontal, `m` of several orientations). A line of a .txt file is
    `x: [[1 2 3]], y: [[1 2 3]], ornt: [u'c'], transcriptions: [u'TEXT']`. Words whose orientation or
    transcription is `#` are don't care. See `TextDataset`.
    """

    PLACES: ClassVar[dict[str, tuple[Place, ...]]] = {
        split: tuple(
            Place(f"{images}/{folder}", f"{annotations}/{folder}", NAMES)
            for images, annotations in (("Images", "Groundtruth/Polygon"), ("Images", "Polygon"))
        )
        for split, folder in (("train", "Train"), ("test", "Test"))
    }
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 1255, "test": 300}

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The words in an annotation file of either kind."""
        rows = _mat_rows(path, findings) if path.suffix == ".mat" else _text_rows(path, findings)
        for where, x, y, orientation, text in rows:
            if len(x) != len(y):
                findings.refuse(where, f"{len(x)} x coordinates and {len(y)} y coordinates")
                continue
            ignore = DONT_CARE in (orientation, text)
            yield from findings.instance(where, np.stack([x, y], 1), text, ignore=ignore, size=size)


Row = tuple[str, Any, Any, str, str]
"""Place, x, y, orientation and transcription."""


def _text_rows(path: Path, findings: Findings) -> Iterator[Row]:
    for where, line in text_lines(path, findings):
        parts = LINE.match(line)
        if parts is None:
            findings.refuse(
                where, f"{line[:40]!r} is not `x: [[…]], y: [[…]], ornt: […], transcriptions: […]`"
            )
            continue
        x, y = (numbers(parts[axis].replace(",", " ").split(), where, findings) for axis in "xy")
        orientation, text = ORIENTATION.search(parts["rest"]), TRANSCRIPTION.search(parts["rest"])
        if x is not None and y is not None:
            yield where, x, y, _value(orientation), _value(text)


def _value(found: re.Match[str] | None) -> str:
    """What stands in the brackets; nothing there is how don't care is written too."""
    return (found["value"] or DONT_CARE) if found else DONT_CARE


def _mat_rows(path: Path, findings: Findings) -> Iterator[Row]:
    try:
        content = loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        findings.refuse(str(path), f"cannot be read as a .mat file ({error})")
        return
    table = next((content[name] for name in TABLES if name in content), None)
    if table is None or table.ndim != 2 or table.shape[1] < 5:
        findings.refuse(str(path), f"has no table {' or '.join(TABLES)} with the columns of Total-Text")
        return
    for number, row in enumerate(table, start=1):
        where = f"{path} row {number}"
        try:
            x, y = (np.asarray(row[column], np.float64).reshape(-1) for column in (1, 3))
        except (TypeError, ValueError) as error:
            findings.refuse(where, f"its corners are not numbers ({error})")
            continue
        text, orientation = (_cell(row[column]) if len(row) > column else "" for column in (4, 5))
        yield where, x, y, orientation, text or DONT_CARE


def _cell(value: Any) -> str:
    """The string in a cell, however deep it is wrapped; an empty one is the empty string."""
    flat = np.asarray(value).reshape(-1)
    return str(flat[0]) if len(flat) else ""
