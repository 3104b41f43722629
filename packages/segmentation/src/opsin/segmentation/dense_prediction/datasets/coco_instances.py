"""COCO's instance files for models that read objects as words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.visualization import distinct_colours


@DATASETS.register_module()
class CocoInstances(CocoDataset):
    """mmdet's `CocoDataset` with the classes that the file lists, and checks of what is there.

    Raises:
        UserError: if the file or the folder of the pictures is missing, or the file is of another kind.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Every picture with its objects, in the order of the file."""
        categories = _read_categories(Path(self.ann_file))
        folder = Path(self.data_prefix["img"])
        if not folder.is_dir():
            raise UserError(f"no folder of pictures at {folder}", "give the right one with --data DIR")
        names = tuple(str(category["name"]) for category in categories)
        self._metainfo |= {
            "classes": names,
            "palette": [tuple(colour) for colour in distinct_colours(len(names)).tolist()],
            "category_ids": [int(category["id"]) for category in categories],
        }
        samples: list[dict[str, Any]] = super().load_data_list()
        return samples


def _read_categories(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"no annotations at {path}", "give the right folder with --data DIR")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not json: {error}") from None
    lacking = [key for key in ("images", "annotations", "categories") if key not in content]
    if lacking:
        raise UserError(f"{path} is not a COCO instances file: it lacks {', '.join(lacking)}")
    categories: list[dict[str, Any]] = content["categories"]
    return categories
