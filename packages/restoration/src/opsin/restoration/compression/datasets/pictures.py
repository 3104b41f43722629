"""Folders of pictures for compression, alone or with masks of their regions.

    kodim01.png …                                           Kodak, CLIC: pictures alone
    train2017/000000000009.jpg                              COCO, with panoptic masks of the same names
    annotations/panoptic_train2017/000000000009.png

A mask is a picture of the same size in which each region has a colour of its own (or a grey value); which
colour means nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import list_images, read_image
from opsin.core.errors import UserError
from opsin.registry import DATASETS


@DATASETS.register_module()
class RegionPictureDataset(Dataset):
    """Pictures, each with `img_path`, and `mask_path` if there are masks.

    Args:
        img_dir: folder of pictures, relative to `data_root`; subfolders count.
        mask_dir: folder of masks whose names (without suffix) are those of the pictures; None: no masks.
        in_memory: whether pictures are read once and kept as `img`: for few that are cropped often.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.

    Raises:
        UserError: if a folder is missing, or a picture has no mask (names the first, and how many).
    """

    def __init__(
        self, *, img_dir: str = "", mask_dir: str | None = None, in_memory: bool = False, **dataset: Any
    ) -> None:
        self.img_dir = img_dir
        self.mask_dir = mask_dir
        self.in_memory = in_memory
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The pictures, in the order of their names."""
        found = self._files()
        return [dict(row, img=read_image(row["img_path"])) for row in found] if self.in_memory else found

    def _files(self) -> list[dict[str, Any]]:
        root = Path(self.data_root or ".")
        folder = root / self.img_dir
        folders = [folder] if self.mask_dir is None else [folder, root / self.mask_dir]
        self._require(folders)
        pictures = list_images(folder)
        if self.mask_dir is None:
            return [dict(img_path=str(path)) for path in pictures]
        return self._with_masks(folder, pictures, root / self.mask_dir)

    def _with_masks(self, folder: Path, pictures: list[Path], mask_folder: Path) -> list[dict[str, Any]]:
        masks = {path.relative_to(mask_folder).with_suffix(""): path for path in list_images(mask_folder)}
        names = [path.relative_to(folder).with_suffix("") for path in pictures]
        missing = [path for path, name in zip(pictures, names, strict=True) if name not in masks]
        if missing:
            raise UserError(
                f"{missing[0].name} and {len(missing) - 1} more pictures have no mask in {mask_folder}",
                "masks bear the names of pictures",
            )
        return [
            dict(img_path=str(path), mask_path=str(masks[name]))
            for path, name in zip(pictures, names, strict=True)
        ]
