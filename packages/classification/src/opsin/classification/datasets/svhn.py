"""Street View House Numbers as its authors publish the cropped digits: one MATLAB file a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from opsin.core.data import Dataset
from opsin.core.errors import UserError
from opsin.registry import DATASETS

SIDE = 32
SPLITS = ("train", "test", "extra")


@DATASETS.register_module()
class SVHN(Dataset):
    """Pictures of 32 x 32 pixels; a sample has `img`, `gt_label` and `img_path`, a name inside its file.

    The files label a zero with 10; here every digit is its own label.

    Args:
        data_root: the folder that holds `train_32x32.mat`, `test_32x32.mat` and `extra_32x32.mat`.
        split: 'train', 'test' or 'extra' (531,131 further digits for training).
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `test_mode`, `indices`, …).

    Raises:
        UserError: for another split, and if the file is missing or damaged.
    """

    def __init__(
        self, *, data_root: str = "", split: Literal["train", "test", "extra"] = "train", **kwargs: Any
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"SVHN with split={split!r}", f"give one of {', '.join(SPLITS)}")
        self.file = Path(data_root) / f"{split}_32x32.mat"
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The file of this split."""
        return [self.file]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every picture and its digit."""
        self._metainfo["classes"] = tuple(str(digit) for digit in range(10))
        images, labels = read_digits(self.file)
        return [
            {"img": image, "gt_label": int(label), "img_path": str(self.file / f"{index:06}.png")}
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]


def read_digits(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 32, 32, 3) and digits (N,) of a file with X (32, 32, 3, N) and y (N, 1).

    Raises:
        UserError: if the file is damaged or holds something else.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=["X", "y"])
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(f"{file} is no SVHN file ({str(error)[:100] or type(error).__name__})") from error
    if not {"X", "y"} <= content.keys():
        raise UserError(f"{file} is no SVHN file (it lacks X or y)")
    images, labels = np.asarray(content["X"]), np.asarray(content["y"])
    if images.ndim == 3:  # MATLAB drops the last dimension of a single picture
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[:3] != (SIDE, SIDE, 3):
        raise UserError(f"{file} holds X of {images.dtype} {images.shape}, expected uint8 (32, 32, 3, N)")
    if labels.size != images.shape[3] or labels.dtype.kind not in "iuf":
        raise UserError(f"{file} holds {images.shape[3]} pictures and {labels.size} labels")
    digits = labels.reshape(-1).astype(np.int64) % 10
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), digits
