"""The base of the task's datasets: what a case is, how it is read, and MONAI's cache around that."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Transform
from numpy.typing import NDArray

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import read_image
from opsin.core.errors import UserError, as_user_error

Array = NDArray[Any]
Results = dict[str, Any]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class ReadCase(Transform):
    """Reads an entry of a dataset; a MONAI transform, so that MONAI's cache keeps what it gives."""

    def __init__(self, dataset: MedicalDataset) -> None:
        self.dataset = dataset

    def __call__(self, entry: Results) -> Results:
        """The entry with `img` (C, H, W) or (C, D, H, W) float32 and `gt_label` (H, W) or (D, H, W)."""
        return {**entry, **self.dataset.read(entry)}


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises the `UserError` behind an error of MONAI's, which wraps whatever a transform raises."""
    try:
        yield
    except RuntimeError as error:
        raise as_user_error(error) or error from None


class MedicalDataset(Dataset):
    """Cases of pictures or volumes with labels.

    An entry has `img_path`, `label_path` and `case`, and may have `slice`; after reading also `img`,
    `gt_label` and `spacing`.

    Args:
        classes: names, the background first; two of them are read as a yes-or-no mask.
        cache_num: how many cases MONAI's `CacheDataset` keeps in memory after reading; not with
            `on_error='skip'`, since the cache is filled before anything can be skipped.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.

    Raises:
        UserError: for fewer than two classes, or a cache together with `on_error='skip'`.
    """

    def __init__(self, *, classes: tuple[str, ...], cache_num: int = 0, **dataset: Any) -> None:
        if len(classes) < 2:
            raise UserError(f"classes {classes} must name the background and something else")
        if cache_num and dataset.get("on_error") == "skip":
            raise UserError("cache_num and on_error='skip' exclude each other", "leave one out")
        self.classes = tuple(classes)
        self.cache_num = cache_num
        self.cached: CacheDataset | None = None
        super().__init__(metainfo={"classes": self.classes}, **dataset)

    @abstractmethod
    def read(self, entry: Results) -> Results:
        """`img`, `gt_label` and `spacing` of an entry."""

    def full_init(self) -> None:
        """Lists the cases and fills the cache."""
        if self._fully_initialized:
            return
        super().full_init()
        if self.cache_num:
            entries = [self.get_data_info(i) for i in range(len(self))]
            with _own_errors():
                self.cached = CacheDataset(
                    entries, ReadCase(self), cache_num=self.cache_num, num_workers=1, progress=False
                )

    def prepare_data(self, index: int) -> Any:
        """Case `index` after the pipeline."""
        if self.cached is None:
            return self.pipeline(ReadCase(self)(self.get_data_info(index)))
        with _own_errors():
            case = dict(self.cached[index])
        return self.pipeline(case)


def read_grey(path: str | Path) -> Array:
    """A picture's luma (1, H, W), float32, 0 to 255."""
    return (read_image(path).astype(np.float32) @ LUMA)[None]


def read_colour(path: str | Path) -> Array:
    """A picture (3, H, W), float32, 0 to 255."""
    return np.ascontiguousarray(read_image(path).transpose(2, 0, 1), np.float32)


def check_sizes(img: Array, label: Array, entry: Results) -> None:
    """Checks that a picture and its labels have one size.

    Raises:
        UserError: naming both files.
    """
    if img.shape[1:] != label.shape:
        sizes = ["x".join(map(str, shape[::-1])) for shape in (img.shape[1:], label.shape)]
        raise UserError(
            f"{entry['img_path']} is {sizes[0]} and its labels {entry['label_path']} are {sizes[1]}"
        )
