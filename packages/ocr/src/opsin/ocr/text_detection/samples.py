"""The sample data of text detection: real words set into real photographs by machine, in five layouts.

Letters of matplotlib's fonts are bent along straight, tilted and curved lines and painted over photographs
that wheels carry; the polygons come from the same curves. Each folder has the layout that the data set of its
name is published in, so the same configs train on it. `README.txt` says that the pictures are made up.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from opsin.core.data.image import write_image
from opsin.core.files import write_atomically
from opsin.ocr.text_detection.datasets import ICDAR2015
from opsin.ocr.text_detection.scenes import Line, Style, scene

NOTE = "Words set into photographs by machine (opsin samples text_detection); not a published data set."

COUNTS = {
    "totaltext": (120, 30),
    "ctw1500": (16, 8),
    "dast1500": (16, 8),
    "icdar2015": (16, 8),
    "msratd500": (16, 8),
}
"""Pictures for training and for testing in each layout."""

STRAIGHT = {"paragraph": 1.0, "headline": 1.0, "illegible": 0.4}
CURVED = {"paragraph": 0.6, "headline": 0.6, "label": 1.0, "badge": 0.5, "flag": 0.7, "illegible": 0.3}
STYLES = {
    "totaltext": Style(CURVED, tries=9),
    "ctw1500": Style(CURVED, tries=9),
    "dast1500": Style(CURVED, tries=26),
    "icdar2015": Style(STRAIGHT, tries=10),
    "msratd500": Style(STRAIGHT, tries=8, perspective=0.0, tilt=22.0),
}

FIRST = {"icdar2015": 1, "totaltext": 1, "ctw1500": 1, "dast1500": 1, "msratd500": 30}
"""Number of the first picture of a data set."""

CURVE_POINTS = 8
"""Corners on either edge of curved text where the layout leaves the number free."""

MAT_HEADER = b"MATLAB 5.0 MAT-file, written by opsin".ljust(116)
"""In place of scipy's, which has the date: the same seed gives the same bytes."""


@dataclass(frozen=True)
class Text:
    """A word or line as it is annotated."""

    polygon: NDArray[np.float32]
    content: str
    curved: bool
    legible: bool

    def numbers(self) -> str:
        """The corners as `x1,y1,x2,y2,…`, rounded."""
        return ",".join(str(value) for value in np.rint(self.polygon).astype(int).reshape(-1))


def write(directory: Path, seed: int = 0) -> None:
    """Writes the data sets into folders of `directory`, in seconds; the same seed gives the same bytes.

    Raises:
        UserError: when the folder cannot be written.
    """
    directory = Path(directory)
    write_atomically(directory / "README.txt", f"{NOTE}\n".encode())
    for index, (layout, counts) in enumerate(COUNTS.items()):
        write_layout(directory / layout, layout, counts, np.random.default_rng([seed, index]))


def write_layout(directory: Path, layout: str, counts: tuple[int, int], rng: np.random.Generator) -> None:
    """Writes one data set, `counts` pictures for training and for testing."""
    number = FIRST[layout]
    for split, count in zip(("train", "test"), counts, strict=True):
        for _ in range(count):
            picture, lines = scene(STYLES[layout], rng)
            image, annotation, content = _FORMS[layout](split, number, lines)
            write_image(directory / image, picture)
            write_atomically(directory / annotation, content)
            number += 1


def _words(lines: list[Line], points: int) -> Iterator[Text]:
    for line in lines:
        polygons = line.word_polygons(points if line.curved else 2)
        for word, polygon in zip(line.strip.words, polygons, strict=True):
            yield Text(polygon, word, line.curved, line.legible)


def _lines(lines: list[Line], points: int, straight_points: int) -> Iterator[Text]:
    for line in lines:
        polygon = line.polygon(points if line.curved else straight_points)
        yield Text(polygon, " ".join(line.strip.words), line.curved, line.legible)


Form = tuple[str, str, bytes]
"""Places of a picture and its annotations, and what these are."""


def _icdar2015(split: str, number: int, lines: list[Line]) -> Form:
    place = ICDAR2015.PLACES[split][0]
    rows = [f"{t.numbers()},{t.content if t.legible else '###'}\r\n" for t in _words(lines, CURVE_POINTS)]
    image, annotation = f"{place.images}/img_{number}.jpg", f"{place.annotations}/gt_img_{number}.txt"
    return image, annotation, "".join(rows).encode("utf-8-sig")


def _total_text(split: str, number: int, lines: list[Line]) -> Form:
    """Text files for training, .mat files for testing: both forms in which it is published."""
    words = list(_words(lines, CURVE_POINTS))
    folder = split.capitalize()
    image, stem = f"Images/{folder}/img{number}.jpg", f"Groundtruth/Polygon/{folder}/poly_gt_img{number}"
    if split == "train":
        return image, f"{stem}.txt", "".join(map(_total_text_line, words)).encode()
    return image, f"{stem}.mat", _total_text_table(words)


def _total_text_line(word: Text) -> str:
    x, y = (" ".join(map(str, np.rint(axis).astype(int))) for axis in word.polygon.T)
    content = word.content if word.legible else "#"
    return f"x: [[{x}]], y: [[{y}]], ornt: [u'{_orientation(word)}'], transcriptions: [u'{content}']\n"


def _orientation(word: Text) -> str:
    if not word.legible:
        return "#"
    if word.curved:
        return "c"
    return "h" if np.ptp(word.polygon[:2, 1]) < 3 else "m"


def _total_text_table(words: list[Text]) -> bytes:
    table = np.empty((len(words), 6), object)
    for row, word in zip(table, words, strict=True):
        x, y = np.rint(word.polygon.T).astype(np.int16)
        row[:] = ["x:", x[None], "y:", y[None], word.content if word.legible else "#", _orientation(word)]
    content = io.BytesIO()
    savemat(content, {"polygt": table})
    return MAT_HEADER + content.getvalue()[len(MAT_HEADER) :]


def _ctw1500(split: str, number: int, lines: list[Line]) -> Form:
    texts = list(_lines(lines, 7, 7))
    if split == "test":
        rows = [f"{t.numbers()},####{t.content if t.legible else '###'}\n" for t in texts]
        content = "".join(rows).encode()
        return f"test_images/{number:04d}.jpg", f"gt_ctw1500/{number:07d}.txt", content
    root = ElementTree.Element("Annotations")
    image = ElementTree.SubElement(root, "image", file=f"{number:04d}.jpg")
    for text in texts:
        low, high = (np.rint(f(text.polygon, axis=0)).astype(int) for f in (np.min, np.max))
        place = {"height": high[1] - low[1], "left": low[0], "top": low[1], "width": high[0] - low[0]}
        box = ElementTree.SubElement(image, "box", {key: str(value) for key, value in place.items()})
        ElementTree.SubElement(box, "label").text = text.content if text.legible else "###"
        ElementTree.SubElement(box, "segs").text = text.numbers()
    ElementTree.indent(root)
    return (
        f"train_images/{number:04d}.jpg",
        f"ctw1500_train_labels/{number:04d}.xml",
        ElementTree.tostring(root),
    )


def _msra_td500(split: str, number: int, lines: list[Line]) -> Form:
    rows = []
    for index, text in enumerate(_lines(lines, 2, 2)):
        top_left, top_right, _, bottom_left = text.polygon
        width, height = (np.linalg.norm(corner - top_left) for corner in (top_right, bottom_left))
        x, y = text.polygon.mean(axis=0) - (width / 2, height / 2)
        angle = np.arctan2(*(top_right - top_left)[::-1])
        rectangle = " ".join(str(round(float(value))) for value in (x, y, width, height))
        rows.append(f"{index} {int(not text.legible)} {rectangle} {angle:.6f}\n")
    name = f"{split}/IMG_{number:04d}"
    return f"{name}.jpg", f"{name}.gt", "".join(rows).encode()


def _dast1500(split: str, number: int, lines: list[Line]) -> Form:
    rows = [
        t.numbers() + ("\n" if t.legible else ",###\n")
        for t in _lines(lines, CURVE_POINTS, straight_points=2)
    ]
    folder = f"{split}_image_and_gt"
    return f"{folder}/image/IMG_{number}.jpg", f"{folder}/gt/IMG_{number}.txt", "".join(rows).encode()


_FORMS: dict[str, Callable[[str, int, list[Line]], Form]] = {
    "icdar2015": _icdar2015,
    "totaltext": _total_text,
    "ctw1500": _ctw1500,
    "msratd500": _msra_td500,
    "dast1500": _dast1500,
}
