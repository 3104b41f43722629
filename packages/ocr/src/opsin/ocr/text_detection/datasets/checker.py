"""What is missing or broken in a folder of text data in a published layout, found without training on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opsin.core.cli.doctor import Finding
from opsin.core.errors import UserError, unknown
from opsin.ocr.text_detection.datasets.ctw1500 import CTW1500
from opsin.ocr.text_detection.datasets.dast1500 import DAST1500
from opsin.ocr.text_detection.datasets.findings import Findings
from opsin.ocr.text_detection.datasets.icdar2015 import ICDAR2015
from opsin.ocr.text_detection.datasets.msra_td500 import MSRATD500
from opsin.ocr.text_detection.datasets.text_dataset import TextDataset
from opsin.ocr.text_detection.datasets.total_text import TotalText

LAYOUTS: dict[str, type[TextDataset]] = {
    "icdar2015": ICDAR2015,
    "totaltext": TotalText,
    "ctw1500": CTW1500,
    "msratd500": MSRATD500,
    "dast1500": DAST1500,
}


@dataclass
class SplitCheck:
    """What stands in one split; `repaired` are self-crossing polygons that are read all the same."""

    split: str
    published: int
    pictures: int = 0
    texts: int = 0
    dont_care: int = 0
    faults: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def check_folder(root: Path, layout: str) -> list[SplitCheck]:
    """Checks the splits of a folder in a layout.

    Raises:
        UserError: if there is no such folder or layout.
    """
    if layout not in LAYOUTS:
        raise unknown("layout of text data", layout, LAYOUTS)
    if not root.is_dir():
        raise UserError(f"no data folder {root}")
    return [check_split(root, LAYOUTS[layout], split) for split in LAYOUTS[layout].PLACES]


def check_split(root: Path, dataset: type[TextDataset], split: str) -> SplitCheck:
    """Reads all annotation files of a split, and the headers of its pictures."""
    check = SplitCheck(split, dataset.PUBLISHED[split])
    place = dataset.place(root, split)
    check.faults += [
        f"missing folder {folder}/"
        for folder in dict.fromkeys((place.images, place.annotations))
        if not (root / folder).is_dir()
    ]
    if check.faults:
        return check
    findings = Findings(collect=True)
    entries = dataset.read_split(root, place, findings)
    instances = [instance for entry in entries for instance in entry["instances"]]
    check.pictures, check.texts = len(entries), len(instances)
    check.dont_care = sum(instance["ignore"] for instance in instances)
    check.faults += findings.faults
    check.repaired += findings.repaired
    if not entries:
        check.faults.append(f"no picture in {place.images}/")
    return check


def check(folders: Sequence[Path]) -> list[Finding]:
    """`opsin doctor`'s look at folders that are, or hold, text data in a published layout."""
    places = [
        place for folder in folders for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir()))
    ]
    return [finding for place in places for layout in layouts_of(place) for finding in _told(place, layout)]


def layouts_of(root: Path) -> list[str]:
    """The layouts in which a folder has annotation files of at least one split."""
    return [
        layout
        for layout, dataset in LAYOUTS.items()
        if any(dataset.place(root, split).annotation_files(root) for split in dataset.PLACES)
    ]


def _told(root: Path, layout: str) -> Iterator[Finding]:
    for split in check_folder(root, layout):
        what = f"{layout} {split.split} in {root}"
        if split.faults:
            more = f", and {len(split.faults) - 1} more" if len(split.faults) > 1 else ""
            mend = f"opsin check-text {root} --layout {layout} tells all"
            yield Finding(what, f"{split.faults[0]}{more}", mend)
        else:
            yield Finding(what, f"{split.pictures} pictures, {split.texts} texts")
