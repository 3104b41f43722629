"""Pictures with masks in two folders: skin lesions as ISIC has them, and grey slices of subjects.

ROOT/images/*.png   ROOT/masks/*.png        ISIC: the sorted lists pair by position
ROOT/Img/Subj_1slice_3.png   ROOT/GT/…      slices: names are equal; grey 0, 63, 126, … are the classes
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from opsin.core.data.image import list_images, read_image
from opsin.core.errors import UserError
from opsin.medical.segmentation.datasets.dataset import (
    Array,
    MedicalDataset,
    Results,
    check_sizes,
    read_colour,
    read_grey,
)
from opsin.medical.volumes import check_labels
from opsin.registry import DATASETS

GREY_STEP = 63  # between the classes' grey values in masks of slices
SLICE_NAME = re.compile(r"^(?P<case>.*?)_?slice_(?P<slice>\d+)$", re.IGNORECASE)


@DATASETS.register_module()
class ImageMaskDataset(MedicalDataset):
    """Pictures and yes-or-no masks in two folders, whose sorted lists pair by position.

    A mask is soft, 0 to 1, as its grey values say: resized masks stay soft.

    Args:
        image_dir: folder of pictures, relative to `data_root`.
        mask_dir: folder of masks.
        channels: 3 for colour, 1 for grey.
        dataset: see `MedicalDataset`.

    Raises:
        UserError: if a folder is missing, or there are more pictures than masks or fewer.
    """

    def __init__(
        self,
        *,
        image_dir: str = "images",
        mask_dir: str = "masks",
        channels: Literal[1, 3] = 3,
        classes: tuple[str, ...] = ("background", "lesion"),
        **dataset: Any,
    ) -> None:
        self.channels = channels
        super().__init__(classes=classes, data_prefix={"img": image_dir, "mask": mask_dir}, **dataset)

    def load_data_list(self) -> list[Results]:
        """The pairs, in the order of the pictures' names."""
        images, masks = (list_images(self.data_prefix[key]) for key in ("img", "mask"))
        if len(images) != len(masks):
            raise UserError(
                f"{self.data_prefix['img']} has {len(images)} pictures and {self.data_prefix['mask']} "
                f"{len(masks)} masks",
                "they pair by their sorted names",
            )
        pairs = zip(images, masks, strict=True)
        return [dict(img_path=str(i), label_path=str(m), case=i.stem) for i, m in pairs]

    def read(self, entry: Results) -> Results:
        """The picture, and its mask from 0 to 1."""
        img = (read_colour if self.channels == 3 else read_grey)(entry["img_path"])
        mask = read_image(entry["label_path"])[..., 0].astype(np.float32) / 255
        check_sizes(img, mask, entry)
        return dict(img=img, gt_label=mask, spacing=(1.0, 1.0))


@DATASETS.register_module()
class SliceDataset(MedicalDataset):
    """Grey slices `Img/Subj_<id>slice_<n>.png` and masks of the same names in `GT/`.

    Args:
        image_dir: folder of slices, relative to `data_root`.
        mask_dir: folder of masks.
        dataset: see `MedicalDataset`.

    Raises:
        UserError: if a folder or a slice's mask is missing.
    """

    def __init__(self, *, image_dir: str = "Img", mask_dir: str = "GT", **dataset: Any) -> None:
        super().__init__(data_prefix={"img": image_dir, "mask": mask_dir}, **dataset)

    def load_data_list(self) -> list[Results]:
        """The slices, in the order of their names."""
        folder = Path(self.data_prefix["mask"])
        entries = []
        for path in list_images(self.data_prefix["img"]):
            mask = folder / path.name
            if not mask.is_file():
                raise UserError(f"slice {path} has no mask {mask}", "masks bear the slices' names")
            entries.append(dict(img_path=str(path), label_path=str(mask), **subject_of(path)))
        return entries

    def read(self, entry: Results) -> Results:
        """The slice, 0 to 255, and its classes."""
        img = read_grey(entry["img_path"])
        label = classes_of_grey(
            read_image(entry["label_path"])[..., 0], len(self.classes), entry["label_path"]
        )
        check_sizes(img, label, entry)
        return dict(img=img, gt_label=label, spacing=(1.0, 1.0))


def subject_of(path: Path) -> Results:
    """`case` and `slice` (from 1) out of a slice's name; another name is a case of its own."""
    found = SLICE_NAME.match(path.stem)
    if found is None:
        return dict(case=path.stem, slice=1)
    return dict(case=found["case"], slice=int(found["slice"]))


def classes_of_grey(grey: Array, classes: int, where: str) -> Array:
    """Grey values 0, 63, 126, … as classes 0, 1, 2, …, uint8; a value between goes to the nearest.

    Raises:
        UserError: if a value is beyond the last class.
    """
    labels = np.rint(grey.astype(np.float32) / GREY_STEP).astype(np.uint8)
    check_labels(labels, classes, where)
    return labels
