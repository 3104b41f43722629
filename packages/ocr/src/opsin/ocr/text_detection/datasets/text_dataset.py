"""The base of the data sets of text: pictures, and an annotation file for each."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import IMAGE_SUFFIXES
from opsin.core.errors import UserError, unknown
from opsin.ocr.text_detection.datasets.findings import Findings, Instance

Entry = dict[str, Any]

ORIENTATION = 0x0112
"""EXIF's tag of how a picture is to be turned."""


@dataclass(frozen=True)
class Place:
    """Where the pictures of a split lie, and the annotations.

    Args:
        images: folder of the pictures.
        annotations: folder of the annotation files; may be the same.
        names: their names in order of preference, `{stem}` being the picture's without its suffix and
            `{number}` the number in it.
    """

    images: str
    annotations: str
    names: tuple[str, ...]

    def annotation(self, root: Path, image: Path) -> Path:
        """The annotation file of a picture; the first choice of name where there is none."""
        digits = re.findall(r"\d+", image.stem)
        number = int(digits[-1]) if digits else 0
        paths = [root / self.annotations / n.format(stem=image.stem, number=number) for n in self.names]
        return next((path for path in paths if path.is_file()), paths[0])

    def annotation_files(self, root: Path) -> list[Path]:
        """All annotation files, where the pictures' folder is there."""
        if not (root / self.images).is_dir():
            return []
        patterns = [re.sub(r"\{[^}]*\}", "*", name) for name in self.names]
        found = {path for pattern in patterns for path in (root / self.annotations).glob(pattern)}
        return sorted(found, key=_natural)


class TextDataset(Dataset):
    """Pictures of scenes with the polygons of their words or lines; a subclass says where and in what form.

    An entry has `img_path`, `img_id` (the picture's name without its suffix), `height`, `width`, and
    `instances`: each with `polygon` (corners, 2) float32 in pixels, clockwise, `text`, and `ignore` for
    don't-care regions. The published annotations count pixels as the file stores them; of a picture that
    EXIF says to turn, the polygons are turned with it.

    Args:
        split: `train` or `test`.
        folders: where in `data_root` pictures and annotation files lie, if not where they are published.
        drop_broken: whether texts whose polygon has no area, fewer than three corners, or lies outside its
            picture are dropped with a warning instead of being an error. (Those of don't-care regions always
            are. Self-crossing polygons are repaired, with a warning, where they can be.)
        **kwargs: those of `Dataset`: `data_root`, `pipeline`, `test_mode`, …

    Raises:
        UserError: when folders or annotation files are missing, two pictures have one name, an annotation
            file has no picture or is not in the layout; the message names file and line.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": ("text",), "palette": [(40, 220, 90)]}

    PLACES: ClassVar[dict[str, tuple[Place, ...]]]
    """Split to the places that are in use for it."""

    PUBLISHED: ClassVar[dict[str, int]]
    """Pictures of each split as published."""

    def __init__(
        self,
        *,
        split: str,
        folders: tuple[str, str] | None = None,
        drop_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        if split not in self.PLACES:
            raise unknown(f"split of {type(self).__name__}", split, self.PLACES)
        self.split, self.folders, self.drop_broken = split, folders, drop_broken
        super().__init__(**kwargs)

    @classmethod
    @abstractmethod
    def read(cls, path: Path, size: tuple[int, int], findings: Findings) -> Iterator[Instance]:
        """The texts in an annotation file; `size` is width and height of its picture."""

    def expected_files(self) -> list[Path]:
        """The folders of the split's pictures and annotations."""
        place = self._place()
        return [Path(self.data_root) / place.images, Path(self.data_root) / place.annotations]

    def _place(self) -> Place:
        place = self.place(Path(self.data_root), self.split)
        return place if self.folders is None else Place(*self.folders, names=place.names)

    @classmethod
    def place(cls, root: Path, split: str) -> Place:
        """The place of a split that is in a folder, wholly or at least in part; else the first one."""
        places = cls.PLACES[split]
        present = [[(root / folder).is_dir() for folder in (p.images, p.annotations)] for p in places]
        return places[int(np.argmax(np.sum(present, axis=1)))]

    def load_data_list(self) -> list[Entry]:
        """Reads the annotation files."""
        findings = Findings(drop=self.drop_broken)
        entries = self.read_split(Path(self.data_root), self._place(), findings)
        findings.report()
        return entries

    @classmethod
    def read_split(cls, root: Path, place: Place, findings: Findings) -> list[Entry]:
        """The entries of the pictures at a place; faults go to `findings`.

        Raises:
            UserError: as the class says, unless `findings` collects faults.
        """
        folder = root / place.images
        images = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."),
            key=_natural,
        )
        entries, used, stems = [], set(), set()
        for image in images:
            if image.stem in stems:
                findings.refuse(str(image), "another picture has this name", "rename one of them")
                continue
            stems.add(image.stem)
            annotation = place.annotation(root, image)
            if not annotation.is_file():
                findings.refuse(str(image), f"has no annotation file {annotation}")
                continue
            used.add(annotation)
            entries += cls._entry(image, annotation, findings)
        _refuse_orphans(place, root, used, findings)
        return entries

    @classmethod
    def _entry(cls, image: Path, annotation: Path, findings: Findings) -> list[Entry]:
        """The entry of a picture; none if its header cannot be read and faults are collected."""
        try:
            stored, orientation = _header(image)
        except UserError as error:
            findings.refuse(str(image), str(error))
            return []
        instances = list(cls.read(annotation, stored, findings))
        for instance in instances:
            instance["polygon"] = turn_upright(instance["polygon"], stored, orientation)
        width, height = stored if orientation < 5 else stored[::-1]
        return [
            {
                "img_path": str(image),
                "img_id": image.stem,
                "height": height,
                "width": width,
                "instances": instances,
            }
        ]


def turn_upright(polygon: NDArray[Any], size: tuple[int, int], orientation: int) -> NDArray[np.float32]:
    """A polygon in a picture as stored, in the picture turned upright.

    Args:
        polygon: (corners, 2), pixels of the stored picture.
        size: its width and height.
        orientation: EXIF's number, 1 to 8; others count as 1.
    """
    width, height = size
    x, y = np.asarray(polygon, np.float32).T
    turned = {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }.get(orientation, (x, y))
    return np.stack(turned, axis=1)


def _header(image: Path) -> tuple[tuple[int, int], int]:
    """Width and height of a picture as stored, and EXIF's orientation."""
    try:
        with Image.open(image) as opened:
            return opened.size, int(opened.getexif().get(ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot be read as an image ({error})", "replace or remove the file") from None


def _refuse_orphans(place: Place, root: Path, used: set[Path], findings: Findings) -> None:
    """Annotation files of no picture."""
    taken = {path.stem for path in used}  # a data set may have each file in two forms
    for path in place.annotation_files(root):
        if path.stem not in taken:
            findings.refuse(str(path), "annotates no picture", f"is one missing in {root / place.images}?")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts img_2 before img_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
