"""PIDray as published: folders of pictures `train`, `easy`, `hard`, `hidden`, and a COCO json of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from opsin.core.data.dataset import Dataset
from opsin.core.errors import UserError, unknown
from opsin.detection.datasets.coco import CocoDetection
from opsin.detection.datasets.objects import CountsClasses
from opsin.detection.xray.classes import CLASSES, PALETTE
from opsin.registry import DATASETS

JSON_FILES = {
    "train": "annotations/xray_train.json",
    "easy": "annotations/xray_test_easy.json",
    "hard": "annotations/xray_test_hard.json",
    "hidden": "annotations/xray_test_hidden.json",
}
"""Annotation file of each part; its pictures are in the folder of the part's name."""


@DATASETS.register_module()
class PIDray(CountsClasses, Dataset):
    """One or more parts of PIDray, or of data in its layout, as one data set.

    Entries are those of `CocoDetection` with `subset`, the part's name, and `img_id` counted over all parts.

    Args:
        parts: some of `train`, `easy`, `hard`, `hidden`.
        drop_bad_boxes: whether boxes without area inside their picture are dropped with a warning.
        **kwargs: those of `Dataset`: `data_root`, `pipeline`, `test_mode`, `metainfo` (other classes), …

    Raises:
        UserError: for an unknown part, a missing file or folder, and whatever `CocoDetection` refuses.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": CLASSES, "palette": PALETTE}

    def __init__(self, *, parts: Sequence[str], drop_bad_boxes: bool = False, **kwargs: Any) -> None:
        for part in parts:
            if part not in JSON_FILES:
                raise unknown("part of PIDray", part, JSON_FILES)
        if not parts:
            raise UserError("PIDray without parts", f"give some of {', '.join(JSON_FILES)}")
        self.parts, self.drop_bad_boxes = tuple(parts), drop_bad_boxes
        super().__init__(**kwargs)

    def expected_files(self) -> list[Path]:
        """The json file and the folder of every part."""
        root = Path(self.data_root)
        return [root / place for part in self.parts for place in (JSON_FILES[part], part)]

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the json files."""
        entries: list[dict[str, Any]] = []
        for part in self.parts:
            read = CocoDetection(
                ann_file=JSON_FILES[part],
                data_root=self.data_root,
                data_prefix={"img": part},
                metainfo={"classes": self._metainfo["classes"]},
                drop_bad_boxes=self.drop_bad_boxes,
                lazy_init=True,
            )
            entries += [{**entry, "subset": part} for entry in read.load_data_list()]
            self._metainfo["category_ids"] = read.metainfo["category_ids"]
        return [{**entry, "img_id": index} for index, entry in enumerate(entries, start=1)]
