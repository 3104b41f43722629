"""Synapse's abdominal scans as TransUNet prepared them: slices for training, volumes for evaluation.

ROOT/train_npz/case0005_slice000.npz        `image` (H, W) in [0, 1], `label` (H, W)
ROOT/test_vol_h5/case0001.npy.h5            `image` (D, H, W), `label` (D, H, W)
ROOT/lists/lists_Synapse/train.txt, test_vol.txt       names without their suffixes, one a line
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opsin.core.errors import UserError
from opsin.medical.segmentation.datasets.dataset import Array, MedicalDataset, Results, check_sizes
from opsin.medical.volumes import check_labels, finite
from opsin.registry import DATASETS

ORGANS = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
SPLITS = {"train": ("train_npz", "train.txt", ".npz"), "test": ("test_vol_h5", "test_vol.txt", ".npy.h5")}


@DATASETS.register_module()
class SynapseDataset(MedicalDataset):
    """Slices (`split='train'`) or volumes (`'test'`).

    Args:
        split: which.
        classes: names, the background first.
        dataset: see `MedicalDataset`.

    Raises:
        UserError: if the folder, the list or a listed file is missing.
    """

    def __init__(
        self, *, split: Literal["train", "test"], classes: tuple[str, ...] = ORGANS, **dataset: Any
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"split {split!r} of Synapse", "use 'train' or 'test'")
        self.folder, self.list_name, self.suffix = SPLITS[split]
        super().__init__(classes=classes, **dataset)

    def load_data_list(self) -> list[Results]:
        """The listed files, in the list's order."""
        root = Path(self.data_root or ".")
        self._require([root / self.folder, root / "lists"])
        lists = sorted((root / "lists").rglob(self.list_name))
        if not lists:
            raise UserError(f"{root / 'lists'} has no {self.list_name}", "it names the files to take")
        entries = []
        for name in filter(None, map(str.strip, lists[0].read_text(encoding="utf-8").splitlines())):
            path = root / self.folder / f"{name}{self.suffix}"
            if not path.is_file():
                raise UserError(f"{lists[0]} names {path.name}, which is not in {path.parent}")
            case, _, number = name.partition("_slice")
            more = {"slice": int(number)} if number.isdigit() else {}
            entries.append(dict(img_path=str(path), label_path=str(path), case=case, **more))
        return entries

    def read(self, entry: Results) -> Results:
        """The slice (1, H, W) or volume (1, D, H, W), and its classes."""
        path = Path(entry["img_path"])
        image, label = read_npz(path) if path.suffix == ".npz" else read_h5(path)
        img = finite(image, str(path)).astype(np.float32)[None]
        check_sizes(img, label, entry)
        check_labels(label, len(self.classes), str(path))
        return dict(img=img, gt_label=label.astype(np.uint8), spacing=(1.0,) * label.ndim)


def read_npz(path: Path) -> tuple[Array, Array]:
    """`image` and `label` of an npz file.

    Raises:
        UserError: if it is damaged or lacks one.
    """
    try:
        with np.load(path) as arrays:
            return arrays["image"], arrays["label"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is truncated or no npz file ({type(error).__name__})") from None
    except KeyError as error:
        raise UserError(f"{path} has no entry 'image' or 'label'") from error


def read_h5(path: Path) -> tuple[Array, Array]:
    """`image` and `label` of an HDF5 file.

    Raises:
        UserError: if it is damaged or lacks one.
    """
    import h5py

    try:
        with h5py.File(path) as arrays:
            return arrays["image"][:], arrays["label"][:]
    except OSError as error:
        raise UserError(f"{path} is truncated or no HDF5 file ({type(error).__name__})") from None
    except KeyError as error:
        raise UserError(f"{path} has no entry 'image' or 'label'") from error
