"""PASCAL VOC 2012 as seeds are trained on it: the classes that a picture has, without their places.

JPEGImages/x.jpg    SegmentationClass/x.png    ImageSets/Segmentation/{train,val}.txt
Annotations/x.xml   if there is one, its objects are the picture's classes; else those in the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.data import Dataset
from opsin.core.errors import UserError, unknown
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.datasets.mask_pairs import IGNORE, label_table, read_index_mask
from opsin.segmentation.visualization import distinct_colours

Results = dict[str, Any]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
BACKGROUND = "background"


@DATASETS.register_module()
class VOCLabels(Dataset):
    """Pictures with the classes that they have, and their mask for the test.

    `classes` in the metainfo begins with `background`, as masks count.

    Args:
        split: list of pictures, `ImageSets/Segmentation/SPLIT.txt`.
        data_root: the folder, `VOC2012`.
        classes: names of the objects, without background, in the order of the masks' indices from 1.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: for files that are missing.
    """

    def __init__(
        self, *, split: str, data_root: str = "", classes: Sequence[str] = CLASSES, **kwargs: Any
    ) -> None:
        self.split = split
        names = (BACKGROUND, *classes)
        self.label_table = label_table(names, range(len(names)), (IGNORE,))
        colours = [tuple(colour) for colour in distinct_colours(len(classes)).tolist()]
        metainfo = {"classes": names, "palette": [(0, 0, 0), *colours]}
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def expected_files(self) -> list[Path]:
        """The list, and the folder of pictures."""
        root = Path(self.data_root)
        return [root / "ImageSets" / "Segmentation" / f"{self.split}.txt", root / "JPEGImages"]

    def load_data_list(self) -> list[Results]:
        """The pictures in the order of the list."""
        root, listing = Path(self.data_root), self.expected_files()[0]
        samples = []
        for name in listing.read_text(encoding="utf-8").split():
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
            marks = root / "Annotations" / f"{name}.xml"
            if not image.is_file():
                raise UserError(f"{listing} lists {name}, but there is no {image}")
            if not marks.is_file() and not mask.is_file():
                raise UserError(f"nothing says what {image} shows: there is neither {marks} nor {mask}")
            sample = {"img_path": str(image), "seg_map_path": str(mask)}
            samples.append(sample | ({"marks_path": str(marks)} if marks.is_file() else {}))
        return samples

    def get_data_info(self, idx: int) -> Results:
        """One entry of the data list with what it takes to understand its files."""
        classes = self.metainfo["classes"]
        return {**super().get_data_info(idx), "label_table": self.label_table, "classes": classes}


@TRANSFORMS.register_module()
class LoadImageLabels(BaseTransform):
    """Adds `gt_labels` (K,) float32, 1 for each class that the picture has.

    Raises:
        UserError: for a file that can't be read, an unknown class, or a picture without any.
    """

    def transform(self, results: Results) -> Results:
        """Adds the labels to `results`."""
        classes = list(results["classes"])[1:]
        path = str(results.get("marks_path", results["seg_map_path"]))
        results["gt_labels"] = _labels(path, classes)
        if not results["gt_labels"].any():
            raise UserError(f"{path} has no object of the {len(classes)} classes")
        return results


@TRANSFORMS.register_module()
class FindImageLabels(BaseTransform):
    """Adds `gt_labels` (K,) as `LoadImageLabels` does, to pictures that lie in VOC's folders alone.

    For seeds and pseudo masks of pictures whose classes are known; others go without.

    Args:
        classes: as for `VOCLabels`.

    Raises:
        UserError: for a file that can't be read or an unknown class.
    """

    def __init__(self, classes: Sequence[str] = CLASSES) -> None:
        self.classes = list(classes)

    def transform(self, results: Results) -> Results:
        """Adds the labels if there is a file that tells them."""
        picture = Path(results["img_path"])
        files = (
            picture.parents[1] / folder / f"{picture.stem}{suffix}"
            for folder, suffix in (("Annotations", ".xml"), ("SegmentationClass", ".png"))
        )
        told = next((file for file in files if file.is_file()), None)
        if told is not None:
            results["gt_labels"] = _labels(str(told), self.classes)
        return results


def _labels(path: str, classes: list[str]) -> NDArray[np.float32]:
    """1 for each class that an annotation or mask has, (K,)."""
    labels = np.zeros(len(classes), np.float32)
    labels[_objects(path, classes) if path.endswith(".xml") else _painted(path, classes)] = 1
    return labels


def _objects(path: str, classes: list[str]) -> list[int]:
    """Indices of the classes of the objects in an annotation file."""
    names = [element.findtext("name", "") for element in read_annotation(path).iter("object")]
    for name in names:
        if name not in classes:
            raise unknown(f"class in {path}", name, classes)
    return [classes.index(name) for name in names]


def read_annotation(path: str | Path) -> ElementTree.Element:
    """The root of an annotation file, as VOC and ImageNet write them.

    Raises:
        UserError: if it is missing or no XML.
    """
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} can't be read as VOC annotations ({error})") from None


def _painted(path: str, classes: list[str]) -> list[int]:
    """Indices of the classes in a mask, whose 0 is background and 255 nothing."""
    found = set(np.unique(read_index_mask(path)).tolist()) - {0, IGNORE}
    beyond = sorted(index for index in found if index > len(classes))
    if beyond:
        raise UserError(f"mask {path} holds class {beyond[0]} of {len(classes)}")
    return [index - 1 for index in found]
