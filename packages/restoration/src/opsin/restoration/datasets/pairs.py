"""Folders of pictures for super-resolution, in the layouts that people have.

    HR/0001.png   LR_bicubic/X4/0001x4.png     DIV2K, Flickr2K
    HR/0001.png   LR_x4/0001.png               Set5 and other test sets
    GT/0001.png   LQ/0001.png                  BasicSR; optionally with a list of `name (h,w,c)` lines
    GTmod4/…      LRbicx4/…                    the authors' benchmarks

HR pictures whose sides are no multiple of the scale are cropped on the right and below, as the field does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import list_images
from opsin.core.errors import UserError
from opsin.registry import DATASETS

LAYOUTS = (
    ("HR", "LR_bicubic/X{scale}"),
    ("HR", "LR_x{scale}"),
    ("GT", "LQ"),
    ("GTmod{scale}", "LRbicx{scale}"),
    ("GTmod12", "LRbicx{scale}"),
)


@DATASETS.register_module()
class PairedImageDataset(Dataset):
    """LR and HR pictures in two folders, matched by name; an LR name may end in `x<scale>` or `_x<scale>`.

    Each entry has `img_path` (LR), `gt_path` (HR) and `scale`.

    Args:
        scale: HR over LR size.
        hr_dir: folder of HR pictures, relative to `data_root`.
        lr_dir: folder of LR pictures. Without both, the first of `LAYOUTS` that exists is taken.
        meta_file: text file with one HR name a line, perhaps followed by `(h,w,c)`; other pictures are not
            used.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.

    Raises:
        UserError: if folders are missing or a picture has no partner (names it).
    """

    def __init__(
        self,
        *,
        scale: int,
        hr_dir: str | None = None,
        lr_dir: str | None = None,
        meta_file: str | None = None,
        **dataset: Any,
    ) -> None:
        if (hr_dir is None) != (lr_dir is None):
            raise UserError(
                "a paired data set needs both hr_dir and lr_dir", "or neither, to find them by layout"
            )
        self.scale = scale
        self.hr_dir, self.lr_dir = hr_dir, lr_dir
        self.meta_file = meta_file
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The pairs, in the order of their names."""
        hr_dir, lr_dir = self._folders()
        small = {self._stem(path.relative_to(lr_dir)): path for path in list_images(lr_dir)}
        large = self._listed(hr_dir) if self.meta_file else list_images(hr_dir)
        pairs = []
        for path in large:
            partner = small.get(str(path.relative_to(hr_dir).with_suffix("")))
            if partner is None:
                raise UserError(
                    f"{path} has no partner in {lr_dir}", "LR pictures bear the names of HR pictures"
                )
            pairs.append(dict(img_path=str(partner), gt_path=str(path), scale=self.scale))
        return pairs

    def _folders(self) -> tuple[Path, Path]:
        root = Path(self.data_root or ".")
        if self.hr_dir is not None and self.lr_dir is not None:
            self._require([root / self.hr_dir, root / self.lr_dir])
            return root / self.hr_dir, root / self.lr_dir
        layouts = [[name.format(scale=self.scale) for name in layout] for layout in LAYOUTS]
        for hr, lr in layouts:
            if (root / hr).is_dir() and (root / lr).is_dir():
                return root / hr, root / lr
        if not root.is_dir():
            raise UserError(f"no data folder {root}", "give the right one with --data DIR")
        expected = ", ".join(f"{hr}/ and {lr}/" for hr, lr in layouts)
        raise UserError(f"data folder {root} has no ×{self.scale} pairs", f"it needs {expected}")

    def _stem(self, name: Path) -> str:
        """The HR name (without suffix) that the LR picture `name` belongs to."""
        stem = str(name.with_suffix(""))
        for ending in (f"_x{self.scale}", f"x{self.scale}"):
            if stem.endswith(ending):
                return stem.removesuffix(ending)
        return stem

    def _listed(self, hr_dir: Path) -> list[Path]:
        file = Path(self.data_root or ".") / str(self.meta_file)
        self._require([file])
        names = [
            line.rsplit(" (", 1)[0].strip()
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        paths = [hr_dir / name for name in names]
        for path in paths:
            if not path.is_file():
                raise UserError(f"{file} lists {path.name}, which is not in {hr_dir}")
        return paths


@DATASETS.register_module()
class HighResolutionDataset(Dataset):
    """HR pictures alone; `LoadHighResolution` reduces them while training.

    Each entry has `img_path` and `gt_path`, both the HR picture, and `scale`.

    Args:
        scale: HR over LR size.
        hr_dir: folder of pictures, relative to `data_root`; subfolders count.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.
    """

    def __init__(self, *, scale: int, hr_dir: str = "", **dataset: Any) -> None:
        self.scale = scale
        self.hr_dir = hr_dir
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The pictures, in the order of their names."""
        folder = Path(self.data_root or ".") / self.hr_dir
        self._require([folder])
        return [dict(img_path=str(path), gt_path=str(path), scale=self.scale) for path in list_images(folder)]
