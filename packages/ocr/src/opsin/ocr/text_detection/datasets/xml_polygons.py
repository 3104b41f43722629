"""Polygons in xml files: a `box` with `segs` and a `label`, or an `object` with a `polygon` and a `name`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from opsin.ocr.text_detection.datasets.findings import Findings, corners

FORMS = {"box": ("segs", "label"), "object": ("polygon", "name")}
"""Element of a text to the elements of its corners and its transcription."""


def read_xml(path: Path, findings: Findings) -> Iterator[tuple[str, NDArray[np.float64], str]]:
    """Place, polygon (corners, 2) and transcription of every text in an xml file.

    Corners are `x1,y1,x2,y2,…`, or elements with one number each in that order (`x1`, `y1`, …, or `pt`s of
    `x` and `y`).
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        findings.refuse(str(path), f"cannot be read as xml ({error})")
        return
    for number, element in enumerate((e for e in root.iter() if e.tag in FORMS), start=1):
        where = f"{path} {element.tag} {number}"
        outline, label = (element.find(tag) for tag in FORMS[element.tag])
        fields = [] if outline is None else ",".join(outline.itertext()).replace(",", " ").split()
        polygon = corners(fields, where, findings)
        if polygon is not None:
            yield where, polygon, (label.text or "").strip() if label is not None else ""
