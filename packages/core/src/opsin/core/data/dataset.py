"""The base of every task's dataset: names files that are missing or damaged, and skips these if asked to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from opsin.core.errors import UserError


class Dataset(BaseDataset):
    """mmengine's dataset with clear errors; a subclass gives `load_data_list()`.

    Every entry of the data list has `img_path`; the pipeline reads the file when the sample is asked for.

    Args:
        on_error: what a damaged or missing file does. `raise`: its `UserError`, which names the file, goes
            up. `skip`: it is logged once, and training takes the next readable sample in its place. For
            evaluation, where a sample must not count twice, all files are read once at the start and bad
            ones left out.
        **kwargs: mmengine's `ann_file`, `data_root`, `data_prefix`, `pipeline`, `test_mode`, `indices`, …

    Raises:
        UserError: when files or folders that `expected_files()` names are missing, or no sample is found.
    """

    def __init__(self, *, on_error: Literal["raise", "skip"] = "raise", **kwargs: Any) -> None:
        if on_error not in ("raise", "skip"):
            raise UserError(f"on_error={on_error!r}", "use 'raise' or 'skip'")
        self.on_error = on_error
        self._reported: set[int] = set()
        super().__init__(**kwargs)

    def expected_files(self) -> list[Path]:
        """What the dataset cannot be read without: the annotation file and the folders of `data_prefix`."""
        paths = [self.ann_file, *self.data_prefix.values()]
        return [Path(p) for p in paths if p]

    def full_init(self) -> None:
        """Reads the annotations; in test mode with `on_error='skip'`, drops samples that cannot be read."""
        if self._fully_initialized:
            return
        self._require(self.expected_files())
        super().full_init()
        if self.test_mode and self.on_error == "skip":
            readable = [i for i in range(len(self)) if self._try(i) is not None]
            if readable and len(readable) < len(self):
                self.get_subset_(readable)
            elif not readable:
                raise UserError(f"no sample of {self._where()} can be read")

    def filter_data(self) -> list[dict[str, Any]]:
        """The samples to keep: all. A dataset without samples is an error."""
        if not self.data_list:
            raise UserError(f"no sample in {self._where()}", "is it the right folder, and the right layout?")
        return self.data_list

    def __getitem__(self, index: int) -> Any:
        """Sample `index` after the pipeline; with `on_error='skip'`, the next one that can be read."""
        if not self._fully_initialized:
            self.full_init()
        if self.on_error == "raise":
            return self.prepare_data(index)
        if not -len(self) <= index < len(self):  # what ends a for loop over the dataset
            raise IndexError(f"sample {index} of {len(self)}")
        for step in range(len(self)):
            sample = self._try((index + step) % len(self))
            if sample is not None:
                return sample
        raise UserError(f"no sample of {self._where()} can be read")

    def _try(self, index: int) -> Any | None:
        try:
            return self.prepare_data(index)
        except UserError as error:
            if index not in self._reported:
                self._reported.add(index)
                print_log(f"skipped: {error}", logger="current", level=logging.WARNING)
            return None

    def _require(self, paths: list[Path]) -> None:
        missing = [p for p in paths if not p.exists()]
        if not missing:
            return
        root = Path(self.data_root) if self.data_root else None
        if root is not None and not root.is_dir():
            raise UserError(f"no data folder {root}", "give the right one with --data DIR")
        names = ", ".join(str(p.relative_to(root) if root and p.is_relative_to(root) else p) for p in missing)
        where = f"data folder {root} lacks" if root is not None else "missing:"
        raise UserError(f"{where} {names}", "check the layout or give another folder with --data DIR")

    def _where(self) -> str:
        return str(self.ann_file or self.data_root or next(iter(self.data_prefix.values()), "the dataset"))
