"""DAST1500: dense and curved lines of text on the packages of goods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.ocr.text_detection.datasets.findings import Findings, Instance, corners, text_lines
from opsin.ocr.text_detection.datasets.text_dataset import Place, TextDataset
from opsin.ocr.text_detection.datasets.xml_polygons import read_xml
from opsin.registry import DATASETS

DONT_CARE = "###"


@DATASETS.register_module()
class DAST1500(TextDataset):
    """DAST1500: `train_image_and_gt/image/IMG_1.JPG`, and a txt or xml file of the same name.

    The annotation files lie in a folder `gt`, `txt` or `xml` beside `image`, or wherever `folders` says. A
    line of a txt file is the corners `x1,y1,x2,y2,…`, any number of them, and perhaps a transcription; xml
    files have a `box` with `segs`, or an `object` with a `polygon`. Texts `###` are don't care. See
    `TextDataset`.
    """

    PLACES: ClassVar[dict[str, tuple[Place, ...]]] = {
        split: tuple(
            Place(
                f"{split}_image_and_gt/image", f"{split}_image_and_gt/{folder}", ("{stem}.txt", "{stem}.xml")
            )
            for folder in ("gt", "txt", "xml")
        )
        for split in ("train", "test")
    }
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 1038, "test": 500}

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The lines in an annotation file of either kind."""
        rows = read_xml(path, findings) if path.suffix == ".xml" else _text_rows(path, findings)
        for where, polygon, text in rows:
            yield from findings.instance(where, polygon, text, ignore=text == DONT_CARE, size=size)


def _text_rows(path: Path, findings: Findings) -> Iterator[tuple[str, NDArray[np.float64], str]]:
    for where, line in text_lines(path, findings):
        fields = [field.strip() for field in line.split(",")]
        count = next((i for i, field in enumerate(fields) if not _is_number(field)), len(fields))
        if count < len(fields):
            count -= count % 2  # a text like `3,50 EUR` begins with a number
        polygon = corners(fields[:count], where, findings)
        if polygon is not None:
            yield where, polygon, ",".join(fields[count:])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
