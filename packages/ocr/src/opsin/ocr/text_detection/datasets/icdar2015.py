"""ICDAR 2015, incidental scene text: words as quadrilaterals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from opsin.ocr.text_detection.datasets.findings import Findings, Instance, corners, text_lines
from opsin.ocr.text_detection.datasets.text_dataset import Place, TextDataset
from opsin.registry import DATASETS

DONT_CARE = "###"


@DATASETS.register_module()
class ICDAR2015(TextDataset):
    """Challenge 4 of ICDAR's robust reading competition of 2015: `img_1.jpg` and `gt_img_1.txt`.

    A line is `x1,y1,x2,y2,x3,y3,x4,y4,transcription`, the corners clockwise; the transcription may hold
    commas, and is `###` for don't-care words. Files begin with a byte order mark. See `TextDataset`.
    """

    PLACES: ClassVar[dict[str, tuple[Place, ...]]] = {
        "train": (
            Place("ch4_training_images", "ch4_training_localization_transcription_gt", ("gt_{stem}.txt",)),
        ),
        "test": tuple(
            Place("ch4_test_images", folder, ("gt_{stem}.txt",))
            for folder in ("Challenge4_Test_Task1_GT", "Challenge4_Test_Task4_GT")
        ),
    }
    PUBLISHED: ClassVar[dict[str, int]] = {"train": 1000, "test": 500}

    @classmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The words in a `gt_*.txt` file."""
        for where, line in text_lines(path, findings):
            fields = line.split(",", 8)
            if len(fields) < 9:
                findings.refuse(where, f"{len(fields)} fields instead of 8 coordinates and a transcription")
                continue
            quadrilateral = corners(fields[:8], where, findings, count=8)
            if quadrilateral is not None:
                text = fields[8].strip()
                ignore = text == DONT_CARE
                yield from findings.instance(where, quadrilateral, text, ignore=ignore, size=size)
