"""SCUT-CTW1500: lines of text, each with a polygon of 14 corners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.ocr.text_detection.datasets.findings import Findings, Instance, corners, numbers, text_lines
from opsin.ocr.text_detection.datasets.text_dataset import Place, TextDataset
from opsin.ocr.text_detection.datasets.xml_polygons import read_xml
from opsin.registry import DATASETS

TEXT = ",####"
"""What stands between the corners of a line and its transcription."""

DONT_CARE = "###"
OFFSETS = 32
"""Numbers in a line of the first release: a box, and 14 corners counted from its top left one."""


@DATASETS.register_module()
class CTW1500(TextDataset):
    """CTW1500 in its second release: `train_images/0001.jpg` with xml, `test_images/1001.jpg` with txt files.

    xml files have a `box` a line, its 14 corners in `segs` and its transcription in `label`. A line of
    `gt_ctw1500/0001001.txt` is `x1,y1,…,x14,y14,####TEXT`; don't-care lines have the text `###`. The first
    release's folders are read too; its lines are `xmin,ymin,xmax,ymax` and 14 corners counted from
    (xmin, ymin), without text. See `TextDataset`.
    """

    PLACES: ClassVar[dict[str, tuple[Place, ...]]] = {
        "train": (
            Place("train_images", "ctw1500_train_labels", ("{stem}.xml", "{stem}.txt")),
            Place("train/text_image", "ctw1500_train_labels", ("{stem}.xml", "{stem}.txt")),
            Place("train/text_image", "train/text_label_curve", ("{stem}.txt",)),
        ),
        "test": (
            Place("test_images", "gt_ctw1500", ("{number:07d}.txt", "{stem}.txt")),
            Place("test/text_image", "gt_ctw1500", ("{number:07d}.txt", "{stem}.txt")),
            Place("test/text_image", "test/text_label_curve", ("{stem}.txt",)),
        ),
    }
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 1000, "test": 500}

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The lines in an annotation file of any kind."""
        rows = read_xml(path, findings) if path.suffix == ".xml" else _text_rows(path, findings)
        for where, polygon, text in rows:
            yield from findings.instance(where, polygon, text, ignore=text == DONT_CARE, size=size)


def _text_rows(path: Path, findings: Findings) -> Iterator[tuple[str, NDArray[np.float64], str]]:
    for where, line in text_lines(path, findings):
        coordinates, mark, text = line.partition(TEXT)
        fields = coordinates.strip(",").split(",")
        if not mark and len(fields) == OFFSETS:
            values = numbers(fields, where, findings)
            polygon = None if values is None else values[4:].reshape(-1, 2) + values[:2]
        else:
            polygon = corners(fields, where, findings, count=None if mark else 28)
        if polygon is not None:
            yield where, polygon, text.strip()
