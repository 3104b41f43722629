"""Pascal VOC: `ImageSets/Main/SPLIT.txt` names the images, `Annotations/NAME.xml` has their boxes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.logging import print_log
from PIL import Image

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import IMAGE_SUFFIXES
from opsin.core.errors import UserError, unknown
from opsin.detection.datasets.boxes import BoxCheck
from opsin.detection.datasets.objects import CountsClasses
from opsin.detection.palette import palette
from opsin.registry import DATASETS

Entry = dict[str, Any]


@DATASETS.register_module()
class PascalVOC(CountsClasses, Dataset):
    """Images with boxes from a folder in the layout of Pascal VOC (one `VOCdevkit/VOC2007`, say).

    The classes are those of `metainfo['classes']`, or all names in `Annotations/` in alphabetical order, so
    that every split has the same. An image without an annotation file, or with none in it, stays as
    background; a missing file is reported. Objects marked `difficult` are marked to be ignored. Corners are
    1-based and inclusive in VOC: (xmin - 1, ymin - 1, xmax, ymax) are the box in pixels.

    Args:
        split: the file in `ImageSets/Main`, without `.txt`.
        data_root: the folder that holds `ImageSets`, `JPEGImages` and `Annotations`.
        drop_bad_boxes: whether boxes without area inside their image are dropped with a warning instead of
            being an error.
        **kwargs: those of `Dataset`.

    Raises:
        UserError: when a folder or an image is missing, the split is empty, an xml file is broken, a name is
            no class, or a box is not four finite numbers or lies outside its image; the message names the
            file. Boxes that reach out of their image are clipped, with a warning.
    """

    def __init__(self, *, split: str, data_root: str, drop_bad_boxes: bool = False, **kwargs: Any) -> None:
        self.drop_bad_boxes = drop_bad_boxes
        self.root = Path(data_root)
        ann_file = str(Path("ImageSets") / "Main" / f"{split}.txt")
        prefix = {"img": "JPEGImages", "annotations": "Annotations"}
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[Entry]:
        """Reads the split and the xml file of each of its images."""
        # A line may be `NAME` or, in the files of one class, `NAME -1`.
        lines = Path(self.ann_file).read_text(encoding="utf-8").splitlines()
        names = [line.split()[0] for line in lines if line.strip()]
        if not names:
            raise UserError(f"{self.ann_file} names no picture")
        labels = self._choose_classes()
        check = BoxCheck(str(self.root / "Annotations"), drop=self.drop_bad_boxes)
        entries = [self._entry(name, index, labels, check) for index, name in enumerate(names)]
        check.report()
        return entries

    def _choose_classes(self) -> dict[str, int]:
        classes = self._metainfo.get("classes")
        if classes is None:
            trees = map(_parse, sorted((self.root / "Annotations").glob("*.xml")))
            classes = sorted({name.strip() for tree in trees for name in _texts(tree, "object/name")})
        self._metainfo.update(classes=tuple(classes), category_ids=tuple(range(1, len(classes) + 1)))
        self._metainfo.setdefault("palette", palette(len(classes)))
        return {name: label for label, name in enumerate(classes)}

    def _entry(self, name: str, index: int, labels: dict[str, int], check: BoxCheck) -> Entry:
        xml = self.root / "Annotations" / f"{name}.xml"
        image = self._find_image(name)
        objects = []
        width, height = 0, 0
        if xml.is_file():
            tree = _parse(xml)
            objects = tree.findall("object")
            width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
        else:
            print_log(
                f"{xml} does not exist: {name} counts as background", logger="current", level=logging.WARNING
            )
        if not width or not height:  # tools that write 0x0 are common
            width, height = _size(image)
        instances = [_instance(o, labels, (width, height), check, str(xml)) for o in objects]
        return {
            "img_path": str(image),
            "img_id": index + 1,
            "height": height,
            "width": width,
            "instances": [i for i in instances if i],
        }

    def _find_image(self, name: str) -> Path:
        folder = self.root / "JPEGImages"
        for suffix in (".jpg", *IMAGE_SUFFIXES):
            for path in (folder / f"{name}{suffix}", folder / f"{name}{suffix.upper()}"):
                if path.is_file():
                    return path
        raise UserError(f"{self.ann_file} names {name}, but {folder} has no such image")


def _parse(xml: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(xml).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{xml} cannot be read as xml: {error}") from None


def _texts(tree: ElementTree.Element, path: str) -> list[str]:
    return [element.text or "" for element in tree.findall(path)]


def _size(image: Path) -> tuple[int, int]:
    try:
        with Image.open(image) as opened:
            return opened.size
    except OSError as error:
        raise UserError(f"{image} cannot be read as an image: {error}") from None


def _instance(
    element: ElementTree.Element, labels: dict[str, int], size: tuple[int, int], check: BoxCheck, where: str
) -> Entry | None:
    name = (element.findtext("name") or "").strip()
    if name not in labels:
        raise unknown(f"class in {where}", name, labels)
    corners = [element.findtext(f"bndbox/{key}") or "" for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, corners)
    except ValueError:
        raise UserError(f"{where}: box {corners} of a {name} is not four numbers") from None
    inside = check((x1 - 1, y1 - 1, x2, y2), size, f"{where} ({name})")
    if inside is None:
        return None
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return {"bbox": list(inside), "bbox_label": labels[name], "ignore_flag": int(difficult)}
