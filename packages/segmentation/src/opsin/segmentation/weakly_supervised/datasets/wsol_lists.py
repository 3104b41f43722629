"""The lists of wsolevaluation (arXiv 2001.07437): CUB, ILSVRC and OpenImages30k for localisation from labels.

METADATA/{train,val,test}/image_ids.txt     `path` a line, below DIR
METADATA/…/class_labels.txt                 `path,label`
METADATA/…/image_sizes.txt                  `path,width,height`; where there are boxes
METADATA/…/localization.txt                 `path,x0,y0,x1,y1`, or `path,mask,ignored` (OpenImages30k)

A picture may have several lines in `localization.txt`; only the first of its masks names what is ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from opsin.core.data import Dataset
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.weakly_supervised.datasets.text_lists import text_lines

Results = dict[str, Any]


@DATASETS.register_module()
class WSOLLists(Dataset):
    """Pictures with their class, and outside the training with their boxes or masks.

    Args:
        split: `train`, `val` (of other pictures than the official ones, for thresholds) or `test`.
        data_root: the folder that the paths in the lists begin in.
        metadata: the folder of the lists' folders; relative to `data_root`.
        mask_root: the folder that the paths of masks begin in; relative to `data_root`.
        classes: names in the order of the labels. By default the folders that the pictures of each label lie
            in, where no two labels share one.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: for lists that are missing, lines that can't be read, a picture without label, size or
            place, and a picture or mask to measure on that is not there.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        data_root: str = "",
        metadata: str = "metadata",
        mask_root: str = "",
        classes: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.split, self.given_classes = split, tuple(classes)
        self.lists = Path(data_root) / metadata / split
        self.mask_root = Path(data_root) / mask_root
        super().__init__(data_root=data_root, **kwargs)

    def expected_files(self) -> list[Path]:
        """The lists; sizes are asked for where there are boxes."""
        places = [] if self.split == "train" else ["localization.txt"]
        return [self.lists / name for name in ("image_ids.txt", "class_labels.txt", *places)]

    def load_data_list(self) -> list[Results]:
        """The pictures in the order of `image_ids.txt`."""
        names = [name for _, (name,) in self._rows("image_ids.txt", "path")]
        labels = self._labels()
        samples = {}
        for name in names:
            label = _of(labels, name, self.lists / "class_labels.txt")
            samples[name] = {"img_path": str(Path(self.data_root) / name), "gt_label": label}
        self._metainfo["classes"] = self._classes({name: labels[name] for name in names})
        if self.split != "train":
            self._add_places(samples)
        return list(samples.values())

    def _rows(self, file: str, *columns: str) -> Iterator[tuple[str, list[str]]]:
        """Each line's place for a message, and its parts; commas of a path are refused."""
        for number, line in enumerate(text_lines(self.lists / file), start=1):
            parts = [part.strip() for part in line.split(",")]
            where = f"{self.lists / file} line {number}"
            if len(parts) != len(columns):
                raise UserError(f"{where} is {line!r}, not `{','.join(columns)}`")
            yield where, parts

    def _labels(self) -> dict[str, int]:
        labels = {}
        for where, (name, label) in self._rows("class_labels.txt", "path", "label"):
            if not label.isdecimal():
                raise UserError(f"{where} has label {label!r}, not a number from 0")
            labels[name] = int(label)
        return labels

    def _classes(self, labels: dict[str, int]) -> tuple[str, ...]:
        count = max(labels.values(), default=-1) + 1
        if self.given_classes:
            if count > len(self.given_classes):
                raise UserError(f"{self.lists}: label {count - 1} of {len(self.given_classes)} classes")
            return self.given_classes
        folders = {label: PurePosixPath(name).parent.name for name, label in labels.items()}
        told_apart = len(set(folders.values())) == len(folders) == count
        return tuple(folders[i] if told_apart else f"class {i}" for i in range(count))

    def _add_places(self, samples: dict[str, Results]) -> None:
        for sample in samples.values():
            if not Path(sample["img_path"]).is_file():
                raise UserError(
                    f"{self.lists / 'image_ids.txt'} lists {sample['img_path']}, which is missing"
                )
        listed = self.lists / "localization.txt"
        first = next(iter(text_lines(listed)), "")
        places = self._masks() if first.count(",") == 2 else self._boxes()
        for name, sample in samples.items():
            sample.update(_of(places, name, listed))

    def _boxes(self) -> dict[str, Results]:
        """`gt_bboxes` (N, 4) float32 in pixels, and the size (h, w) that they are for."""
        self._require([self.lists / "image_sizes.txt"])
        sizes = {}
        for where, (name, width, height) in self._rows("image_sizes.txt", "path", "width", "height"):
            if not (width.isdecimal() and height.isdecimal()):
                raise UserError(f"{where} has size {width},{height}, not two numbers")
            sizes[name] = (int(height), int(width))
        boxes: dict[str, list[list[float]]] = defaultdict(list)
        for where, (name, *numbers) in self._rows("localization.txt", "path", "x0", "y0", "x1", "y1"):
            boxes[name].append(box_of(numbers, where))
        return {
            name: {
                "gt_bboxes": np.array(rows, np.float32),
                "box_shape": _of(sizes, name, self.lists / "image_sizes.txt"),
            }
            for name, rows in boxes.items()
        }

    def _masks(self) -> dict[str, Results]:
        """`mask_paths` of the object's parts, and `ignore_path`."""
        masks: dict[str, Results] = {}
        for where, (name, mask, ignored) in self._rows("localization.txt", "path", "mask", "ignored"):
            if name not in masks:
                masks[name] = {"mask_paths": [], "ignore_path": str(self.mask_root / ignored)}
            elif ignored:
                raise UserError(f"{where} names a second file of what is ignored in {name}")
            masks[name]["mask_paths"].append(str(self.mask_root / mask))
            for file in filter(None, (mask, ignored)):
                if not (self.mask_root / file).is_file():
                    raise UserError(f"{where} names mask {self.mask_root / file}, which is not there")
        return masks


def box_of(numbers: Sequence[str], where: str) -> list[float]:
    """The box x0, y0, x1, y1 of four numbers as text.

    Raises:
        UserError: for what is no number, or a box whose ends lie before its beginnings.
    """
    try:
        x0, y0, x1, y1 = (float(number) for number in numbers)
    except ValueError:
        raise UserError(f"{where} has box {','.join(numbers)}, not four numbers") from None
    if x1 < x0 or y1 < y0:
        raise UserError(f"{where} has box {','.join(numbers)}, whose end lies before its beginning")
    return [x0, y0, x1, y1]


def _of(rows: dict[str, Any], name: str, listing: Path) -> Any:
    if name not in rows:
        raise UserError(f"{listing} has no line for {name}")
    return rows[name]
