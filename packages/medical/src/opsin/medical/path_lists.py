"""Lists of files: `path label` a line, pictures and volumes alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opsin.core.data import Dataset
from opsin.core.data.image import IMAGE_SUFFIXES
from opsin.core.errors import UserError
from opsin.medical.volumes import is_volume
from opsin.registry import DATASETS


@DATASETS.register_module()
class PathLists(Dataset):
    """What text files list, one `path label` a line; the label may be missing where none is needed.

    A sample has `img_path`, `is_volume`, and `gt_label` if the line has one. Paths are relative to the list's
    folder. Empty lines and lines that begin with # are passed over.

    Args:
        lists: names of the list files, in `data_root`.
        classes: names of the classes; numbers if they are not given.
        data_root: their folder.
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `on_error`, …).

    Raises:
        UserError: if a list or a file in it is missing, a label is no class, or a file is of another kind.
    """

    def __init__(
        self,
        *,
        lists: Sequence[str],
        classes: Sequence[str] | None = None,
        data_root: str = "",
        **kwargs: Any,
    ) -> None:
        self.lists, self.names = [Path(data_root) / name for name in lists], classes
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The lists."""
        return list(self.lists)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every line of every list."""
        samples = [sample for file in self.lists for sample in _read(file)]
        count = max((sample.get("gt_label", -1) for sample in samples), default=-1) + 1
        self._metainfo["classes"] = tuple(self.names or map(str, range(count)))
        if count > len(self._metainfo["classes"]):
            raise UserError(
                f"{self.lists[0]} has class {count - 1} (counted from 0) and the config names "
                f"{len(self._metainfo['classes'])} classes"
            )
        return samples

    @property
    def kinds(self) -> list[bool]:
        """Of each sample whether it is a volume."""
        return [bool(self.get_data_info(index)["is_volume"]) for index in range(len(self))]


def _read(file: Path) -> list[dict[str, Any]]:
    samples = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, _, label = line.rpartition(" ")
        if not name or not label.isdigit():
            name, label = line, ""
        path = file.parent / name.strip()
        if not path.is_file():
            raise UserError(f"{file}, line {number}: no file at {path}")
        if not is_volume(path) and path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f"{file}, line {number}: {path.name} is neither a picture nor a volume")
        sample = {"img_path": str(path), "is_volume": is_volume(path)}
        samples.append({**sample, "gt_label": int(label)} if label else sample)
    return samples
