"""The MNI152 head that nilearn's wheel carries: slices of a T1 template with its grey and white matter.

There is one head, symmetric from left to right. So training and validation take turns by slabs of axial
slices, and training keeps away from the borders of the others: a network is judged on anatomy that it has not
seen, though on the same person.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from opsin.core.errors import UserError
from opsin.medical.segmentation.datasets.dataset import Array, MedicalDataset, Results
from opsin.medical.volumes import axial_slices
from opsin.registry import DATASETS

TISSUES = ("background", "grey matter", "white matter")
SLAB = 20.0  # millimetres of a slab
TURN = 3  # of so many slabs one is for validation: the second
MARGIN = 4.0  # millimetres from a slab of validation that training keeps away


@DATASETS.register_module()
class MNI152Slices(MedicalDataset):
    """Axial slices: `img` (1, H, W) float32 from 0 to 1, `gt_label` (H, W), of `TISSUES`.

    Args:
        split: 'train' or 'val'.
        spacing: millimetres between voxels to which the head is brought; the wheel's are 1 mm.
        dataset: see `MedicalDataset`; no `data_root` is needed.

    Raises:
        UserError: for another split, a spacing that is not positive, or if nilearn does not carry the head.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val"],
        spacing: float = 2.0,
        classes: tuple[str, ...] = TISSUES,
        **dataset: Any,
    ) -> None:
        if split not in ("train", "val"):
            raise UserError(f"split {split!r} of MNI152", "use 'train' or 'val'")
        if spacing <= 0:
            raise UserError(f"MNI152 with a spacing of {spacing} mm", "give a positive one")
        self.split, self.spacing = split, spacing
        super().__init__(classes=classes, **dataset)

    def load_data_list(self) -> list[Results]:
        """The slices of the split, from below upwards."""
        count = mni152(self.spacing)[0].shape[2]
        path = str(_file("t1"))
        return [
            dict(img_path=path, label_path=path, case="mni152", slice=number + 1)
            for number in range(count)
            if split_of((number + 0.5) * self.spacing) == self.split
        ]

    def read(self, entry: Results) -> Results:
        """The slice and its tissues."""
        image, label = (axial_slices(part) for part in mni152(self.spacing))
        at = entry["slice"] - 1
        return dict(img=image[None, at].copy(), gt_label=label[at].copy(), spacing=(self.spacing,) * 2)


def split_of(height: float) -> str:
    """The split of a slice at `height`, in millimetres from the lowest: 'train', 'val', or '' for neither."""
    slab, inside = divmod(height, SLAB)
    if slab % TURN == 1:
        return "val"
    near_above = (slab + 1) % TURN == 1 and SLAB - inside < MARGIN
    near_below = (slab - 1) % TURN == 1 and inside < MARGIN
    return "" if near_above or near_below else "train"


@cache
def mni152(spacing: float) -> tuple[Array, Array]:
    """The head (X, Y, Z), float32 from 0 to 1, and its tissues, uint8, RAS+ orientation, at `spacing` mm.

    Raises:
        UserError: if nilearn does not carry it.
    """
    parts = {}
    for kind in ("t1", "gm", "wm"):
        image: Any = nib.load(_file(kind))
        parts[kind] = ndimage.zoom(image.get_fdata(dtype=np.float32), 1 / spacing, order=1) / 255
    background = 1 - parts["gm"] - parts["wm"]
    classes = np.stack([background, parts["gm"], parts["wm"]]).argmax(0)
    return parts["t1"], classes.astype(np.uint8)


def _file(kind: str) -> Path:
    import nilearn

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    path = folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise UserError(f"nilearn carries no {path.name}", "pip install nilearn")
    return path
