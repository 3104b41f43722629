"""MedMNIST (arXiv 2110.14795): one `.npz` a data set, pictures and labels of its three splits.

`NAME.npz` (28 pixels) or `NAME_224.npz` hold `{train,val,test}_images`, uint8 (N, H, W) or (N, H, W, 3), and
`{train,val,test}_labels` (N, 1), or (N, C) of zeros and ones where a picture may have several findings.
MedMNIST-C's files have `test_images` and `test_labels` alone.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from opsin.core.data import Dataset
from opsin.core.errors import UserError
from opsin.registry import DATASETS

SPLITS = ("train", "val", "test")
UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


@DATASETS.register_module()
class MedMNIST(Dataset):
    """The pictures of one split, held in memory as the file has them.

    A sample has `img` (H, W, 3), grey pictures in three equal channels; `gt_label`, a number, or a list of C
    zeros and ones for several findings; and `img_path`, a name inside the file.

    Args:
        data_root: the folder of the file.
        file: its name, with or without `.npz`.
        split: 'train', 'val' or 'test'.
        classes: names of the classes; numbers if they are not given.
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `test_mode`, `indices`, …).

    Raises:
        UserError: for another split, and if the file is missing, damaged, or holds something else.
    """

    def __init__(
        self,
        *,
        data_root: str = "",
        file: str,
        split: Literal["train", "val", "test"] = "train",
        classes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"MedMNIST with split={split!r}", f"give one of {', '.join(SPLITS)}")
        self.file, self.split = Path(data_root) / f"{file.removesuffix('.npz')}.npz", split
        self.names = classes
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The one file."""
        return [self.file]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every picture of the split and its label."""
        images, labels = read_split(self.file, self.split)
        several = labels.shape[1] > 1
        count = labels.shape[1] if several else int(labels.max(initial=0)) + 1
        self._metainfo["classes"] = tuple(self.names or map(str, range(count)))
        if len(self._metainfo["classes"]) < count:
            raise UserError(f"{self.file} has {count} classes and the config names {len(self.names or ())}")
        return [
            {
                "img": image if image.ndim == 3 else image[..., None].repeat(3, -1),
                "gt_label": label.tolist() if several else int(label[0]),
                "img_path": str(self.file / f"{self.split}{index:06}.png"),
            }
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]


def splits_of(file: Path) -> list[str]:
    """The splits whose pictures a file holds.

    Raises:
        UserError: if it is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            return [split for split in SPLITS if f"{split}_images" in content.files]
    except UNREADABLE as error:
        raise _damaged(file, error) from error


def read_split(file: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, H, W) or (N, H, W, 3) and labels (N, C) of one split.

    Raises:
        UserError: if the file is damaged, lacks the split, or holds something else.
    """
    names = [f"{split}_images", f"{split}_labels"]
    try:
        with np.load(file, allow_pickle=False) as content:
            missing = [name for name in names if name not in content.files]
            if missing:
                has = ", ".join(content.files) or "nothing"
                raise UserError(f"{file} lacks {' and '.join(missing)}", f"it has {has}")
            images, labels = (np.asarray(content[name]) for name in names)
    except UNREADABLE as error:
        raise _damaged(file, error) from error
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not grey_or_colour:
        raise UserError(
            f"{file}: {names[0]} are {images.dtype} {images.shape}, expected uint8 (N, H, W[, 3])"
        )
    labels = labels.reshape(len(labels), -1)
    if len(labels) != len(images) or labels.dtype.kind not in "iub" or labels.shape[1] == 0:
        raise UserError(f"{file} holds {len(images)} pictures and labels {labels.dtype} {labels.shape}")
    if labels.size and labels.min() < 0:
        raise UserError(f"{file}: {names[1]} has negative labels")
    return images, labels.astype(np.int64)


def _damaged(file: Path, error: BaseException) -> UserError:
    return UserError(f"{file} is truncated or no .npz file ({str(error)[:80]})")
