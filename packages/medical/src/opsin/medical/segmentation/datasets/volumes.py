"""Volumes with labels: NIfTI files, or DICOM series in folders.

ROOT/images/case_01.nii.gz      ROOT/labels/case_01.nii.gz
ROOT/images/case_02/*.dcm       ROOT/labels/case_02.nii.gz        a DICOM series
ROOT/imagesTr/…                 ROOT/labelsTr/…                   as the Medical Segmentation Decathlon; its
                                                                  channel suffix `_0000` may be there
"""

from __future__ import annotations

from pathlib import Path

from opsin.core.errors import UserError
from opsin.medical.segmentation.datasets.dataset import MedicalDataset, Results
from opsin.medical.volumes import (
    axial_slices,
    conceal,
    find_series,
    is_volume,
    patient_identity,
    read_labels,
    read_volume,
    stem,
)
from opsin.registry import DATASETS

LAYOUTS = (("images", "labels"), ("imagesTr", "labelsTr"))


@DATASETS.register_module()
class VolumeDataset(MedicalDataset):
    """Volumes in RAS+ orientation as axial slices: `img` (1, D, H, W), `gt_label` (D, H, W).

    Args:
        dataset: see `MedicalDataset`.

    Raises:
        UserError: if the folders or a volume's labels are missing.
    """

    def load_data_list(self) -> list[Results]:
        """The volumes, in the order of their names."""
        root = Path(self.data_root or ".")
        found = [pair for pair in LAYOUTS if all((root / part).is_dir() for part in pair)]
        if not found:
            self._require([root / part for part in LAYOUTS[0]])
        images, labels = (root / part for part in found[0])
        by_stem = {stem(path): path for path in sorted(labels.iterdir()) if is_volume(path)}
        entries = []
        for path in find_volumes(images):
            case = stem(path) if path.is_file() else path.name
            partner = by_stem.get(case, by_stem.get(case.removesuffix("_0000")))
            if partner is None:
                identity = patient_identity(find_series(path)[0][0]) if path.is_dir() else frozenset()
                raise UserError(
                    conceal(f"volume {path} has no labels in {labels}", identity),
                    "labels bear the volumes' names",
                )
            entries.append(dict(img_path=str(path), label_path=str(partner), case=case))
        return entries

    def read(self, entry: Results) -> Results:
        """The volume and its classes, both as axial slices."""
        volume = read_volume(entry["img_path"])
        label = read_labels(entry["label_path"], len(self.classes), volume)
        x, y, z = volume.spacing
        return dict(img=axial_slices(volume.values)[None], gt_label=axial_slices(label), spacing=(z, y, x))


def find_volumes(folder: Path) -> list[Path]:
    """The volumes in a folder: its files, and its subfolders that hold a DICOM series; sorted."""
    files = [p for p in folder.iterdir() if p.is_file() and is_volume(p) and p.suffix != ".img"]
    series = [p for p in folder.iterdir() if p.is_dir() and find_series(p)]
    return sorted([*files, *series])
