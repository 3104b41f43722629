"""Looks a data folder over: which layouts it has, how many cases, and what is wrong with them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opsin.core.data import Dataset
from opsin.core.data.image import IMAGE_SUFFIXES, read_image
from opsin.core.errors import UserError
from opsin.medical.classification.datasets.medmnist import read_split, splits_of
from opsin.medical.path_lists import PathLists
from opsin.medical.segmentation.datasets.dataset import MedicalDataset, Results
from opsin.medical.segmentation.datasets.pictures import ImageMaskDataset, SliceDataset
from opsin.medical.segmentation.datasets.synapse import SynapseDataset
from opsin.medical.segmentation.datasets.volumes import VolumeDataset
from opsin.medical.volumes import (
    conceal,
    find_series,
    is_volume,
    patient_identity,
    read_series,
    read_volume,
)

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
    everything = sorted(folder.rglob("*"))
    for place in [folder, *(p for p in everything if p.is_dir())]:
        reports += [
            _check(place, layout, make(place, names))
            for layout, parts, make in LAYOUTS
            if all((place / part).is_dir() for part in parts)
        ]
        inside = any(part in place.parts for part in ("images", "imagesTr"))
        if not inside and (series := find_series(place)):
            reports.append(_check_series(place, series))
    reports += [_check_medmnist(p) for p in everything if p.suffix == ".npz" and _is_medmnist(p)]
    reports += [_check_list(p) for p in everything if p.suffix == ".txt" and _is_path_list(p)]
    if not reports:
        known = "; ".join(layout for layout, _, _ in LAYOUTS)
        raise UserError(
            f"no known layout in {folder}", f"it may be {known}; MedMNIST's npz; path lists; or DICOM series"
        )
    return reports


def _check(place: Path, layout: str, dataset: MedicalDataset) -> Report:
    return _looked_over(Report(place, layout), dataset, lambda entry: _remarks(entry, dataset.read(entry)))


def _looked_over(report: Report, dataset: Dataset, look: Callable[[Results], list[str]]) -> Report:
    """The report on all entries of a data set; `look` gives remarks on one, or raises what is wrong."""
    try:
        dataset.full_init()
    except UserError as error:
        report.problems.append(str(error))
        return report
    for index in range(len(dataset)):
        try:
            remarks = look(dataset.get_data_info(index))
        except UserError as error:
            report.problems.append(str(error))
        else:
            report.cases += 1
            report.remarks += remarks
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
    identity = frozenset[str]().union(*(patient_identity(files[0]) for files in series))
    report = Report(Path(conceal(str(place), identity)), f"{len(series)} DICOM series")
    for files in series:
        try:
            read_series(files)
        except UserError as error:
            report.problems.append(str(error))
        else:
            report.cases += 1
    return report


def _is_medmnist(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return path.parent.name != "train_npz"  # torn, or no npz: told as a problem; Synapse has its own
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("_images.npy") for name in archive.namelist())


def _check_medmnist(path: Path) -> Report:
    report = Report(path, "MedMNIST's npz")
    try:
        splits = splits_of(path)
    except UserError as error:
        report.problems.append(str(error))
        return report
    for split in splits:
        try:
            images, labels = read_split(path, split)
        except UserError as error:
            report.problems.append(str(error))
            continue
        report.cases += len(images)
        flat = images.reshape(len(images), -1)
        if constant := int((flat.min(1, initial=255) >= flat.max(1, initial=0)).sum()):
            report.remarks.append(f"{path.name}: {constant} pictures of {split} are constant")
        several = labels.shape[1] > 1
        present = np.flatnonzero(labels.any(0)) if several else np.unique(labels)
        count = labels.shape[1] if several else int(labels.max(initial=-1)) + 1
        if missing := sorted(set(range(count)) - set(present.tolist())):
            report.remarks.append(f"{path.name}: {split} has no picture of class {missing[0]}")
    return report


def _is_path_list(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = (line.strip() for line in lines if line.strip() and not line.startswith("#"))
    name = Path(next(entries, "").rpartition(" ")[0] or ".")
    return is_volume(name) or name.suffix.lower() in IMAGE_SUFFIXES


def _check_list(path: Path) -> Report:
    dataset = PathLists(lists=[path.name], data_root=str(path.parent), pipeline=[], lazy_init=True)
    return _looked_over(Report(path, "list of pictures and volumes"), dataset, _listed_remarks)


def _listed_remarks(entry: Results) -> list[str]:
    path = entry["img_path"]
    values = read_volume(path).values if entry["is_volume"] else read_image(path)
    return [f"{Path(path).name} is constant"] if np.ptp(values) == 0 else []
