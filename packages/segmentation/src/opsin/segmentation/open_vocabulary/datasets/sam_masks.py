"""Masks that SAM's automatic generator made beforehand: one `.npz` a picture, with the array `logits`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.segmentation.panoptic.datasets import PackPanoptic

Results = dict[str, Any]

MOST = 50  # the largest masks; the authors' number


@TRANSFORMS.register_module()
class ReadSamMasks(BaseTransform):
    """Adds `sam_masks` (N, h, w) float32: mask logits of the whole picture, the `most` largest first.

    Args:
        folder: holds `NAME.npz` for a picture `NAME.jpg`; a picture without one has no masks.
        most: how many are kept.

    Raises:
        UserError: if the folder is missing, or a file has no three-dimensional array `logits`.
    """

    def __init__(self, folder: str, most: int = MOST) -> None:
        self.folder, self.most = Path(folder), most
        if not self.folder.is_dir():
            raise UserError(f"no folder of SAM's masks at {self.folder}")

    def transform(self, results: Results) -> Results:
        """Adds the masks to `results`."""
        path = (self.folder / Path(results["img_path"]).name).with_suffix(".npz")
        if path.is_file():
            logits = _read(path)
            areas = (logits > 0).sum((1, 2))
            results["sam_masks"] = logits[np.argsort(-areas, kind="stable")[: self.most]]
        return results


def _read(path: Path) -> NDArray[np.float32]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            logits: NDArray[np.float32] = np.asarray(arrays["logits"], np.float32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no array 'logits' ({error})") from error
    if logits.ndim != 3:
        raise UserError(f"{path}: logits are {list(logits.shape)}", "give masks x height x width")
    return logits


@TRANSFORMS.register_module()
class PackOpenVocabulary(PackPanoptic):
    """Packs as `PackPanoptic` does, and `sam_masks` with it."""

    def transform(self, results: Results) -> Results:
        """The packed sample."""
        packed = super().transform(results)
        if "sam_masks" in results:
            packed["data_samples"].set_field(torch.from_numpy(results["sam_masks"]), "sam_masks")
        return packed
