"""ImageNet's folders as its localisation challenge has them (CLS-LOC): classes by folder, boxes as XML.

Data/CLS-LOC/train/<wnid>/*.JPEG    folders in sorted order are the classes
Data/CLS-LOC/val/*.JPEG
Annotations/CLS-LOC/val/*.xml       class and boxes of each picture
LOC_synset_mapping.txt              `wnid names` a line; may be missing where the training folders are there
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from opsin.core.data import Dataset, list_images
from opsin.core.errors import UserError, unknown
from opsin.registry import DATASETS
from opsin.segmentation.weakly_supervised.datasets.text_lists import text_lines
from opsin.segmentation.weakly_supervised.datasets.voc import read_annotation
from opsin.segmentation.weakly_supervised.datasets.wsol_lists import box_of

Results = dict[str, Any]

MAPPING = "LOC_synset_mapping.txt"


@DATASETS.register_module()
class ILSVRCLocalization(Dataset):
    """Pictures with their class, and in validation their boxes.

    Args:
        split: `train` or `val`.
        data_root: the folder, `ILSVRC`.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: for folders or annotations that are missing or can't be read, and unknown classes.
    """

    def __init__(self, *, split: Literal["train", "val"], data_root: str = "", **kwargs: Any) -> None:
        self.split = split
        self.pictures = Path(data_root) / "Data" / "CLS-LOC"
        self.marks = Path(data_root) / "Annotations" / "CLS-LOC" / "val"
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The split's folders."""
        return [self.pictures / self.split, *([self.marks] if self.split == "val" else [])]

    def load_data_list(self) -> list[Results]:
        """Training pictures by class, or those of the validation by name."""
        wnids = self._find_classes()
        if self.split == "val":
            return [self._measured(path, wnids) for path in list_images(self.pictures / "val")]
        return [
            {"img_path": str(path), "gt_label": label}
            for label, wnid in enumerate(wnids)
            for path in list_images(self.pictures / "train" / wnid)
        ]

    def _find_classes(self) -> list[str]:
        """The classes' wnids, sorted; their names go to the metainfo."""
        mapping, folder = Path(self.data_root) / MAPPING, self.pictures / "train"
        lines = text_lines(mapping) if mapping.is_file() else []
        names = dict(line.partition(" ")[::2] for line in lines)
        wnids = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        wnids = wnids or sorted(names)
        if not wnids:
            raise UserError(f"{self.data_root} has no classes", f"add {folder}/<wnid>/*.JPEG or {MAPPING}")
        self._metainfo["classes"] = tuple(names.get(wnid) or wnid for wnid in wnids)
        return wnids

    def _measured(self, path: Path, wnids: list[str]) -> Results:
        file = self.marks / f"{path.stem}.xml"
        if not file.is_file():
            raise UserError(f"{path} has no annotation {file}")
        root = read_annotation(file)
        objects = [(element.findtext("name", ""), element) for element in root.iter("object")]
        if not objects:
            raise UserError(f"{file} has no object")
        wnid = objects[0][0]
        if wnid not in wnids:
            raise unknown(f"class in {file}", wnid, wnids)
        boxes = [_box(element, file) for name, element in objects if name == wnid]
        size = [root.findtext(f"size/{side}", "") for side in ("height", "width")]
        if not all(side.isdecimal() for side in size):
            raise UserError(f"{file} does not say its picture's width and height")
        return {
            "img_path": str(path),
            "gt_label": wnids.index(wnid),
            "gt_bboxes": np.array(boxes, np.float32),
            "box_shape": tuple(map(int, size)),
        }


def _box(element: ElementTree.Element, file: Path) -> list[float]:
    ends = [element.findtext(f"bndbox/{end}", "") for end in ("xmin", "ymin", "xmax", "ymax")]
    return box_of(ends, str(file))
