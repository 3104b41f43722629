"""What is missing or broken in a folder in PIDray's layout, found without training on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapely import Polygon

from opsin.core.errors import UserError
from opsin.detection.xray.classes import CLASSES, PUBLISHED_COUNTS
from opsin.detection.xray.datasets.pidray import JSON_FILES

SHOWN = 3
"""Places that are named of each kind of fault."""


@dataclass
class PartCheck:
    """What stands in one part; `faults` is kind of fault to the places where it was found."""

    part: str
    pictures: int = 0
    objects: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fault: str, place: str) -> None:
        """Notes a fault."""
        self.faults.setdefault(fault, []).append(place)

    @property
    def published(self) -> int:
        """Pictures that this part has as published."""
        return PUBLISHED_COUNTS[self.part]

    def lines(self) -> list[str]:
        """One line for each kind of fault, with its first places."""
        found = []
        for fault, places in self.faults.items():
            more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
            found.append(f"{fault}: {', '.join(places[:SHOWN])}{more}")
        return found


def check_folder(root: Path) -> list[PartCheck]:
    """Checks all four parts of a folder.

    Raises:
        UserError: if there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"no data folder {root}")
    return [check_part(root, part) for part in JSON_FILES]


def check_part(root: Path, part: str) -> PartCheck:
    """Checks the json file of a part and that its pictures are there."""
    check = PartCheck(part)
    folder, file = root / part, root / JSON_FILES[part]
    if not folder.is_dir():
        check.add("missing folder", f"{part}/")
    if not file.is_file():
        check.add("missing file", JSON_FILES[part])
        return check
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images, annotations = list(content["images"]), list(content["annotations"])
        names = {category["id"]: category["name"] for category in content["categories"]}
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        check.add("not COCO json", f"{JSON_FILES[part]} ({type(error).__name__}: {error})")
        return check
    check.pictures, check.objects = len(images), len(annotations)
    _check_categories(names, check)
    sizes = _check_images(images, folder, check)
    for annotation in annotations:
        _check_annotation(annotation, names, sizes, check)
    check.classes = dict(Counter(names.get(a.get("category_id"), "?") for a in annotations))
    for fault, entries in (("picture id given twice", images), ("annotation id given twice", annotations)):
        for value, count in Counter(entry.get("id") for entry in entries).items():
            if count > 1:
                check.add(fault, str(value))
    return check


def _check_categories(names: dict[Any, str], check: PartCheck) -> None:
    for name in sorted(set(names.values()) - set(CLASSES)):
        check.add("unknown category", repr(name))
    for name in CLASSES:
        if name not in names.values():
            check.add("category that is not there", repr(name))


def _check_images(
    images: list[dict[str, Any]], folder: Path, check: PartCheck
) -> dict[Any, tuple[float, float]]:
    """Sizes (width, height) by picture id."""
    if not images:
        check.add("no picture", JSON_FILES[check.part])
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    sizes = {}
    for image in images:
        name = str(image.get("file_name", ""))
        if folder.is_dir() and name not in present and not (folder / name).is_file():
            check.add("missing picture", f"{check.part}/{name}")
        sizes[image.get("id")] = (image.get("width", 0), image.get("height", 0))
    for file, count in Counter(image.get("file_name") for image in images).items():
        if count > 1:
            check.add("picture listed twice", str(file))
    return sizes


def _check_annotation(
    annotation: dict[str, Any],
    names: dict[Any, str],
    sizes: dict[Any, tuple[float, float]],
    check: PartCheck,
) -> None:
    where = f"annotation {annotation.get('id', '(without id)')}"
    if annotation.get("category_id") not in names:
        check.add("category id without a category", where)
    size = sizes.get(annotation.get("image_id"))
    if size is None:
        check.add("annotation of no picture", where)
        return
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
        check.add("box that is not four numbers", where)
    elif box[2] <= 0 or box[3] <= 0:
        check.add("box without area", where)
    elif box[0] < -1 or box[1] < -1 or box[0] + box[2] > size[0] + 1 or box[1] + box[3] > size[1] + 1:
        check.add("box outside its picture", where)
    for fault in mask_faults(annotation.get("segmentation"), size):
        check.add(fault, where)


def mask_faults(mask: Any, size: tuple[float, float]) -> Iterator[str]:
    """What is wrong with an annotation's polygons or run lengths for a picture of `size` (width, height)."""
    if not mask:
        yield "object without a mask"
    elif isinstance(mask, dict):
        if list(mask.get("size", [])) != [size[1], size[0]]:
            yield "mask of another size than its picture"
        counts = mask.get("counts")
        if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            yield "run lengths that do not fill the picture"
    elif isinstance(mask, list) and all(isinstance(polygon, list) for polygon in mask):
        for polygon in mask:
            yield from _polygon_faults(polygon, size)
    else:
        yield "mask that is neither polygons nor run lengths"


def _polygon_faults(polygon: list[Any], size: tuple[float, float]) -> Iterator[str]:
    if len(polygon) % 2 or not all(isinstance(v, int | float) for v in polygon):
        yield "polygon that is not pairs of numbers"
        return
    if len(polygon) < 6:
        yield "polygon of fewer than three points"
        return
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    if any(not (-1 <= x <= size[0] + 1 and -1 <= y <= size[1] + 1) for x, y in points):
        yield "polygon outside its picture"
    if not Polygon(points).is_valid:
        yield "polygon that crosses itself"
