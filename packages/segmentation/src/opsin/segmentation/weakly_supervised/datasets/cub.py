"""CUB-200-2011 as weakly supervised localisation keeps it: one object a picture, boxes for the test alone.

train/<class>/*.jpg     folders in sorted order are the classes
test/<class>/*.jpg
test_list.txt           `path;label` a line, the path in DIR or in DIR/test
test_bounding_box.txt   `x0 y0 x1 y1 h w` a line, in pixels of the picture of that size
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from opsin.core.data import Dataset, list_images
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.weakly_supervised.datasets.text_lists import text_lines

Results = dict[str, Any]


@DATASETS.register_module()
class CUBLocalization(Dataset):
    """Pictures with their class, and in the test their box.

    Args:
        split: `train` or `test`.
        data_root: the folder, `CUB_200_2011`.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: for files that are missing, lines that can't be read, lists of different length, a picture
            that is not there, or a label without a class.
    """

    def __init__(self, *, split: Literal["train", "test"], data_root: str = "", **kwargs: Any) -> None:
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The folders, and in the test the lists."""
        lists = ["test", "test_list.txt", "test_bounding_box.txt"] if self.split == "test" else []
        return [Path(self.data_root) / name for name in ("train", *lists)]

    def load_data_list(self) -> list[Results]:
        """Training pictures by class, or the test's in the order of its list."""
        root = Path(self.data_root)
        classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
        if not classes:
            raise UserError(f"{root / 'train'} has no class folders", "the layout is train/<class>/*.jpg")
        self._metainfo["classes"] = tuple(classes)
        return self._test(root, len(classes)) if self.split == "test" else self._train(root, classes)

    def _train(self, root: Path, classes: list[str]) -> list[Results]:
        return [
            {"img_path": str(path), "gt_label": label}
            for label, name in enumerate(classes)
            for path in list_images(root / "train" / name)
        ]

    def _test(self, root: Path, classes: int) -> list[Results]:
        names, boxes = (text_lines(root / name) for name in ("test_list.txt", "test_bounding_box.txt"))
        if len(names) != len(boxes):
            raise UserError(
                f"{root}: test_list.txt has {len(names)} lines and test_bounding_box.txt {len(boxes)}"
            )
        samples = []
        for number, (name, box) in enumerate(zip(names, boxes, strict=True), start=1):
            path, label = _listed(root, name, number, classes)
            samples.append({"img_path": str(path), "gt_label": label, **_box(root, box, number)})
        return samples


def _listed(root: Path, line: str, number: int, classes: int) -> tuple[Path, int]:
    name, separator, label = line.rpartition(";")
    if not separator or not label.strip().isdigit():
        raise UserError(f"{root}/test_list.txt line {number} is {line!r}, not `path;label`")
    path = next((place / name for place in (root, root / "test") if (place / name).is_file()), None)
    if path is None:
        raise UserError(f"{root}/test_list.txt line {number} lists {name}, which is not there")
    if int(label) >= classes:
        raise UserError(f"{root}/test_list.txt line {number} has label {label} of {classes} classes")
    return path, int(label)


def _box(root: Path, line: str, number: int) -> Results:
    """`gt_bboxes` (1, 4) float32, and the size (h, w) that the box is for."""
    try:
        x0, y0, x1, y1, height, width = (float(part) for part in line.split())
    except ValueError:
        raise UserError(
            f"{root}/test_bounding_box.txt line {number} is {line!r}, not `x0 y0 x1 y1 h w`"
        ) from None
    if not (x0 < x1 and y0 < y1):
        raise UserError(f"{root}/test_bounding_box.txt line {number} is an empty box: {line!r}")
    return {
        "gt_bboxes": np.array([[x0, y0, x1, y1]], np.float32),
        "box_shape": (int(height), int(width)),
    }
