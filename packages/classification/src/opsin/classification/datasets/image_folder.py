"""ImageFolder, the layout of ImageNet: `train/<class>/*.jpg` and `val/<class>/*.jpg`.

Either split may lie in an uncompressed tar file instead, `train.tar` or `val.tar`, and is read from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.core.data import IMAGE_SUFFIXES, Dataset, list_images
from opsin.core.data.archives import members
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
        """The folder (or archive) of this split and of the one that names the classes."""
        return list(dict.fromkeys([self._split_folder, self._class_folder]))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every image below every class folder, and its label."""
        classes = sorted(_images_of_classes(self._class_folder))
        self._metainfo["classes"] = tuple(classes)
        samples = []
        for name, images in _images_of_classes(self._split_folder).items():
            if name not in classes:
                close = nearest(name, classes) or classes[:5]
                raise UserError(
                    f"{self._split_folder / name} is a class that {self._class_folder} does not have",
                    f"its nearest there: {', '.join(close)}",
                )
            label = classes.index(name)
            samples += [{"img_path": str(path), "gt_label": label} for path in images]
        return samples

    @property
    def _split_folder(self) -> Path:
        return _folder_or_archive(Path(self.data_prefix["img_path"]))

    @property
    def _class_folder(self) -> Path:
        return _folder_or_archive(Path(self.data_root) / self.class_split)


def _folder_or_archive(folder: Path) -> Path:
    archive = folder.with_name(f"{folder.name}.tar")
    return archive if archive.is_file() and not folder.is_dir() else folder


def _images_of_classes(split: Path) -> dict[str, list[Path]]:
    """The images of every class of a split, both sorted."""
    if split.is_file():
        found = _images_in_archive(split)
    else:
        folders = sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = {folder.name: list_images(folder) for folder in folders}
    if not found:
        raise UserError(
            f"{split} has no class folders", "the layout is train/<class>/*.jpg and val/<class>/*.jpg"
        )
    return found


def _images_in_archive(archive: Path) -> dict[str, list[Path]]:
    """The same out of a tar file, which may hold the classes or a folder of the split's name around them."""
    images: dict[str, list[Path]] = {}
    for path in members(archive):
        inside = path.relative_to(archive).parts
        folders = inside[1:-1] if inside[0] == archive.stem else inside[:-1]
        if folders and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            images.setdefault(folders[0], []).append(path)
    return dict(sorted(images.items()))
