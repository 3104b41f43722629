"""COCO json: `images`, `annotations` with boxes and masks (polygons or run lengths), `categories`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from opsin.core.data.dataset import Dataset
from opsin.core.errors import UserError, unknown
from opsin.detection.datasets.boxes import BoxCheck
from opsin.detection.datasets.objects import CountsClasses
from opsin.detection.palette import palette
from opsin.registry import DATASETS

Entry = dict[str, Any]


@DATASETS.register_module()
class CocoDetection(CountsClasses, Dataset):
    """Images with boxes and masks from a COCO json file.

    The classes are the file's categories by ascending id, or those of `metainfo['classes']`, a subset or
    another order of them; annotations of other categories are then left out. Images without annotations
    stay, as background. Crowd regions (`iscrowd`) are marked to be ignored.

    An entry has `img_path`, `img_id`, `height`, `width` and `instances`, each with `bbox` (x1 y1 x2 y2,
    pixels), `bbox_label`, `ignore_flag` and, where the file has one, `mask` (polygons or RLE).

    Args:
        drop_bad_boxes: whether boxes without area inside their image are dropped with a warning (COCO 2017
            has a few) instead of being an error.
        **kwargs: those of `Dataset`: `ann_file` the json file, `data_prefix=dict(img=FOLDER)` where the
            images lie, `metainfo`, `pipeline`, …

    Raises:
        UserError: when the file is not COCO json, names no image or gives an id twice, an annotation names no
            known image or category, or a box is not four finite numbers or lies outside its image; the
            message names file and annotation. Boxes that reach out of their image are clipped, with a
            warning.
    """

    def __init__(self, *, drop_bad_boxes: bool = False, **kwargs: Any) -> None:
        self.drop_bad_boxes = drop_bad_boxes
        super().__init__(**kwargs)

    def load_data_list(self) -> list[Entry]:
        """Reads the json file."""
        content = _read(Path(self.ann_file))
        labels = self._choose_classes(content["categories"])
        images = [self._image(image, index) for index, image in enumerate(content["images"])]
        if not images:
            raise UserError(f"{self.ann_file} names no picture")
        by_id = {image["img_id"]: image for image in images}
        self._refuse_twice("image id", [image["img_id"] for image in images])
        self._refuse_twice("annotation id", [a["id"] for a in content["annotations"] if "id" in a])
        known = {category["id"] for category in content["categories"]}
        check = BoxCheck(str(self.ann_file), drop=self.drop_bad_boxes)
        for annotation in content["annotations"]:
            where = f"{self.ann_file}, annotation {annotation.get('id', '(without id)')}"
            if annotation.get("category_id") not in known:
                raise UserError(
                    f"{where} has category_id {annotation.get('category_id')!r}", "no category has this id"
                )
            if annotation.get("image_id") not in by_id:
                raise UserError(
                    f"{where} has image_id {annotation.get('image_id')!r}", "no image has this id"
                )
            if annotation["category_id"] in labels:
                image = by_id[annotation["image_id"]]
                instance = _instance(annotation, labels[annotation["category_id"]], image, check, where)
                image["instances"] += [instance] if instance else []
        check.report()
        return images

    def _choose_classes(self, categories: list[Entry]) -> dict[int, int]:
        """Category id to label; also puts classes, colours and ids into the meta information."""
        for key in ("id", "name"):
            self._refuse_twice(f"category {key}", [category[key] for category in categories])
        by_name = {c["name"]: c["id"] for c in sorted(categories, key=lambda c: c["id"])}
        classes = tuple(self._metainfo.get("classes", by_name))
        for name in classes:
            if name not in by_name:
                raise unknown(f"class (not among the categories of {self.ann_file})", name, by_name)
        ids = tuple(by_name[name] for name in classes)
        self._metainfo.update(classes=classes, category_ids=ids)
        self._metainfo.setdefault("palette", palette(len(classes)))
        return {category_id: label for label, category_id in enumerate(ids)}

    def _refuse_twice(self, what: str, values: list[Any]) -> None:
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UserError(f"{self.ann_file} gives {what} {twice[0]} twice", "each must be there once")

    def _image(self, image: Entry, index: int) -> Entry:
        missing = [key for key in ("id", "file_name", "width", "height") if key not in image]
        if missing:
            raise UserError(f"{self.ann_file}, images[{index}] lacks {', '.join(missing)}")
        path = Path(self.data_prefix.get("img", "")) / image["file_name"]
        return {
            "img_path": str(path),
            "img_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "instances": [],
        }


def _read(path: Path) -> dict[str, list[Entry]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as json: {error}") from None
    parts = ("images", "annotations", "categories")
    missing = [p for p in parts if not isinstance(content, dict) or not isinstance(content.get(p), list)]
    if missing:
        raise UserError(f"{path} is not COCO json", f"it lacks the list(s) {', '.join(missing)}")
    found: dict[str, list[Entry]] = content
    return found


def _instance(annotation: Entry, label: int, image: Entry, check: BoxCheck, where: str) -> Entry | None:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox {box!r} is not [x, y, width, height]")
    corners = (
        *box[:2],
        *(a + b if _is_number(a) and _is_number(b) else b for a, b in zip(box[:2], box[2:], strict=True)),
    )
    inside = check(corners, (image["width"], image["height"]), where)
    if inside is None:
        return None
    instance: Entry = {
        "bbox": list(inside),
        "bbox_label": label,
        "ignore_flag": int(annotation.get("iscrowd", 0)),
    }
    if annotation.get("segmentation"):
        instance["mask"] = annotation["segmentation"]
    return instance


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
