"""ImageFolder, the layout of ImageNet: `train/<class>/*.jpg` and `val/<class>/*.jpg`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.core.data import Dataset, list_images
from opsin.core.errors import UserError, nearest
from opsin.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(Dataset):
    """One folder a class; a sample has `img_path` and `gt_label`, the place of its class among all.

    The classes are the folders of the training split in sorted order, for every split: a class that a split
    lacks must not move the numbers of the others.

    Args:
        data_root: the folder that holds the splits.
        split: name of the split's folder in `data_root`.
        class_split: the split whose folders are the classes.
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `test_mode`, `on_error`, …).

    Raises:
        UserError: if a split is missing, has no class folders, a class folder holds no image, or a split has
            a class that `class_split` has not.
    """

    def __init__(
        self, *, data_root: str = "", split: str = "train", class_split: str = "train", **kwargs: Any
    ) -> None:
        self.class_split = class_split
        super().__init__(data_root=data_root, data_prefix={"img_path": split}, **kwargs)

    def expected_files(self) -> list[Path]:
        """The folder of this split and of the one that names the classes."""
        return list(dict.fromkeys([self._split_folder, self._class_folder]))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every image below every class folder, and its label."""
        classes = _class_names(self._class_folder)
        self._metainfo["classes"] = tuple(classes)
        samples = []
        for name in _class_names(self._split_folder):
            folder = self._split_folder / name
            if name not in classes:
                close = nearest(name, classes) or classes[:5]
                raise UserError(
                    f"{folder} is a class that {self._class_folder} does not have",
                    f"its nearest there: {', '.join(close)}",
                )
            label = classes.index(name)
            samples += [{"img_path": str(path), "gt_label": label} for path in list_images(folder)]
        return samples

    @property
    def _split_folder(self) -> Path:
        return Path(self.data_prefix["img_path"])

    @property
    def _class_folder(self) -> Path:
        return Path(self.data_root) / self.class_split


def _class_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(
            f"{folder} has no class folders", "the layout is train/<class>/*.jpg and val/<class>/*.jpg"
        )
    return names
