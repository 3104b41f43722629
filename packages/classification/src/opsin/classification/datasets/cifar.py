"""CIFAR-10 and CIFAR-100 as their authors publish them: the "python version", batches of pickled arrays.

Unpickling runs code that the file names. The reader here builds NumPy arrays and plain values and nothing
else, so a batch from anywhere is safe to read.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from opsin.core.data import Dataset
from opsin.core.errors import UserError
from opsin.registry import DATASETS

SIDE = 32
# folder inside the archive, files of the splits, file of the class names
LAYOUTS: dict[int, tuple[str, dict[str, list[str]], str]] = {
    10: (
        "cifar-10-batches-py",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
        "batches.meta",
    ),
    100: ("cifar-100-python", {"train": ["train"], "test": ["test"]}, "meta"),
}
LABELS = {10: ("labels", "label_names"), 100: ("fine_labels", "fine_label_names")}
# where old and new NumPy keep what their pickles name
_ARRAY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


@DATASETS.register_module()
class CIFAR(Dataset):
    """Pictures of 32 x 32 pixels; a sample has `img`, `gt_label` and `img_path`, a name inside its batch.

    Args:
        data_root: the folder that holds `cifar-10-batches-py` (`cifar-100-python`), or that folder itself.
        classes: 10, or 100, where the labels are the fine ones.
        split: 'train' or 'test'.
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `test_mode`, `indices`, …).

    Raises:
        UserError: for another number of classes or split, and if batches are missing or damaged.
    """

    def __init__(
        self,
        *,
        data_root: str = "",
        classes: Literal[10, 100] = 10,
        split: Literal["train", "test"] = "train",
        **kwargs: Any,
    ) -> None:
        if classes not in LAYOUTS or split not in LAYOUTS[classes][1]:
            raise UserError(f"CIFAR with classes={classes} and split={split!r}", "10 or 100, train or test")
        folder, files, names = LAYOUTS[classes]
        self.folder = Path(data_root)
        if not (self.folder / names).is_file():
            self.folder /= folder
        self.batches, self.names = [self.folder / file for file in files[split]], self.folder / names
        self.label_key, self.name_key = LABELS[classes]
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The batches of this split and the file with the class names."""
        return [*self.batches, self.names]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every picture of every batch, and its label."""
        self._metainfo["classes"] = tuple(_entry(read_batch(self.names), self.name_key, self.names))
        return [sample for batch in self.batches for sample in self._samples(batch)]

    def _samples(self, file: Path) -> list[dict[str, Any]]:
        batch = read_batch(file)
        images = _as_images(_entry(batch, "data", file), file)
        labels = _entry(batch, self.label_key, file)
        files = batch.get("filenames") or [f"{index:05}.png" for index in range(len(images))]
        if not len(images) == len(labels) == len(files):
            raise UserError(f"{file} holds {len(images)} pictures and {len(labels)} labels")
        return [
            {"img": image, "gt_label": int(label), "img_path": str(file / name)}
            for image, label, name in zip(images, labels, files, strict=True)
        ]


def _as_images(rows: NDArray[np.uint8], file: Path) -> NDArray[np.uint8]:
    """Rows (N, 3072), the red plane first, to pictures (N, 32, 32, 3)."""
    if np.shape(rows)[1:] != (3 * SIDE * SIDE,):
        raise UserError(f"{file} holds data of shape {np.shape(rows)}, expected (N, {3 * SIDE * SIDE})")
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _entry(batch: dict[str, Any], key: str, file: Path) -> Any:
    if key not in batch:
        raise UserError(f"{file} has no {key}", f"it has {', '.join(map(str, batch))}")
    return batch[key]


class _Unpickler(pickle.Unpickler):
    """Reads arrays and plain values; every other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in ("_reconstruct", "ndarray", "dtype"):
            from numpy._core import multiarray  # what `numpy.core.multiarray` of old files is called now

            return getattr(multiarray if name == "_reconstruct" else np, name)
        if (module, name) == ("_codecs", "encode"):  # bytes that Python 3 wrote for Python 2
            return codecs.encode
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_batch(file: Path) -> dict[str, Any]:
    """The dictionary of one batch, without running anything that the file names.

    Raises:
        UserError: if the file is damaged or holds something else.
    """
    try:
        with file.open("rb") as stream:
            batch = _Unpickler(stream, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{file} is no CIFAR batch ({str(error)[:100] or type(error).__name__})") from error
    if not isinstance(batch, dict):
        raise UserError(f"{file} is no CIFAR batch (it holds a {type(batch).__name__})")
    return batch
