"""Looks a data folder over: which layout it has, how many cases, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opsin.core.errors import UserError
from opsin.medical.segmentation.datasets.dataset import MedicalDataset, Results
from opsin.medical.segmentation.datasets.pictures import ImageMaskDataset, SliceDataset
from opsin.medical.segmentation.datasets.synapse import SynapseDataset
from opsin.medical.segmentation.datasets.volumes import VolumeDataset
from opsin.medical.volumes import find_series, read_series

ANISOTROPIC = 3.0  # times the finest spacing from which on a volume is remarked upon


@dataclass
class Report:
    """What was found in one folder.

    Attributes:
        folder: the folder.
        layout: its layout in words.
        cases: how many cases can be read.
        problems: what keeps a case from being read.
        remarks: what can be read and is still unusual.
    """

    folder: Path
    layout: str
    cases: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


Make = Callable[[Path, tuple[str, ...]], MedicalDataset]

LAYOUTS: tuple[tuple[str, tuple[str, ...], Make], ...] = (
    ("Img/ and GT/ slices", ("Img", "GT"), lambda root, names: SliceDataset(**_settings(root, names))),
    (
        "images/ and masks/",
        ("images", "masks"),
        lambda root, names: ImageMaskDataset(**_settings(root, names[:2])),
    ),
    (
        "images/ and labels/ volumes",
        ("images", "labels"),
        lambda root, names: VolumeDataset(**_settings(root, names)),
    ),
    (
        "imagesTr/ and labelsTr/ volumes",
        ("imagesTr", "labelsTr"),
        lambda root, names: VolumeDataset(**_settings(root, names)),
    ),
    (
        "Synapse's training slices",
        ("train_npz", "lists"),
        lambda root, names: SynapseDataset(split="train", **_settings(root, names)),
    ),
    (
        "Synapse's test volumes",
        ("test_vol_h5", "lists"),
        lambda root, names: SynapseDataset(split="test", **_settings(root, names)),
    ),
)


def _settings(root: Path, names: tuple[str, ...]) -> dict[str, Any]:
    return dict(data_root=str(root), classes=names, pipeline=[], lazy_init=True)


def check_folder(folder: Path, classes: int) -> list[Report]:
    """Reports on `folder` and its subfolders, a report for each layout found.

    Args:
        folder: where the data are.
        classes: how many classes labels may have, the background among them.

    Raises:
        UserError: if there is no such folder, or no known layout in it.
    """
    if not folder.is_dir():
        raise UserError(f"no data folder {folder}")
    names = tuple(f"class {index}" for index in range(classes))
    reports = []
    for place in [folder, *sorted(p for p in folder.rglob("*") if p.is_dir())]:
        reports += [
            _check(place, layout, make(place, names))
            for layout, parts, make in LAYOUTS
            if all((place / part).is_dir() for part in parts)
        ]
        inside = any(part in place.parts for part in ("images", "imagesTr"))
        if not inside and (series := find_series(place)):
            reports.append(_check_series(place, series))
    if not reports:
        known = "; ".join(layout for layout, _, _ in LAYOUTS)
        raise UserError(f"no known layout in {folder}", f"it may be {known}; or DICOM series")
    return reports


def _check(place: Path, layout: str, dataset: MedicalDataset) -> Report:
    report = Report(place, layout)
    try:
        dataset.full_init()
    except UserError as error:
        report.problems.append(str(error))
        return report
    for index in range(len(dataset)):
        entry = dataset.get_data_info(index)
        try:
            case = dataset.read(entry)
        except UserError as error:
            report.problems.append(str(error))
        else:
            report.cases += 1
            report.remarks += _remarks(entry, case)
    return report


def _remarks(entry: Results, case: Results) -> list[str]:
    name, found = Path(entry["img_path"]).name, []
    if float(np.ptp(case["img"])) == 0:
        found.append(f"{name} is constant")
    if not np.any(case["gt_label"]):
        found.append(f"{name} has no label but the background")
    if max(case["spacing"]) > ANISOTROPIC * min(case["spacing"]):
        found.append(f"{name} is anisotropic: {' x '.join(f'{s:g}' for s in case['spacing'])} mm")
    return found


def _check_series(place: Path, series: list[list[Path]]) -> Report:
    report = Report(place, f"{len(series)} DICOM series")
    for files in series:
        try:
            read_series(files)
        except UserError as error:
            report.problems.append(str(error))
        else:
            report.cases += 1
    return report
