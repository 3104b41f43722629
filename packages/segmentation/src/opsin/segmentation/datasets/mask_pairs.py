"""Pictures with index masks: a folder of images, one of masks of the same names, and names of the classes.

Two layouts are in wide use and differ only in names and labels:

* plain: `images/{train,val}/x.jpg`, `masks/{train,val}/x.png`, `classes.txt`; a pixel of the mask is the
  index of
  its class, 255 is void;
* ADE20K's: `images/{training,validation}/x.jpg`, `annotations/{training,validation}/x.png`; 0 is void, and
  class 0
  has label 1 (`reduce_zero_label=True`).

In the pipeline every mask becomes `gt_seg_map` (H, W) uint8 with classes from 0 and 255 for what the loss
ignores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from opsin.core.data import Dataset, list_images
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.visualization import distinct_colours

Results = dict[str, Any]

IGNORE = 255
UNKNOWN = -1


@DATASETS.register_module()
class MaskPairs(Dataset):
    """Image and mask pairs.

    Args:
        data_root: the folder of the data set.
        data_prefix: `img_path` and `seg_map_path`, the folders of images and masks; subfolders are kept.
        classes: the names of the classes in the order of their labels; by default the lines of
            `classes_file`.
        palette: one RGB colour a class; distinct colours by default.
        classes_file: relative to `data_root`, one name a line; read if `classes` is not given.
        mask_suffix: of the masks; `_labelIds.png` fits masks named `x_labelIds.png`.
        reduce_zero_label: label 0 is void and the classes begin with label 1.
        label_values: the labels of the classes in their order, where they are neither 0, 1, 2, … nor 1, 2, 3,
            …; `(0, 255)` reads black-and-white masks of two classes.
        void: labels that belong to no class.
        on_error: see `opsin.core.data.Dataset`.
        **kwargs: `pipeline`, `test_mode`, `indices`, … of mmengine.

    Raises:
        UserError: if folders, class names or all images are missing, for an image without a mask, and for a
            palette of another length than the classes.
    """

    def __init__(
        self,
        *,
        data_root: str = "",
        data_prefix: dict[str, str],
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        classes_file: str = "classes.txt",
        mask_suffix: str = ".png",
        reduce_zero_label: bool = False,
        label_values: Sequence[int] | None = None,
        void: Sequence[int] = (IGNORE,),
        **kwargs: Any,
    ) -> None:
        if classes is None:
            classes = read_classes(Path(data_root) / classes_file)
        if palette is None:
            palette = distinct_colours(len(classes)).tolist()
        if len(palette) != len(classes):
            raise UserError(f"{len(palette)} colours for {len(classes)} classes", "give one a class")
        self.mask_suffix = mask_suffix
        if label_values is None:
            label_values = range(int(reduce_zero_label), len(classes) + int(reduce_zero_label))
        self.label_table = label_table(classes, label_values, [0, *void] if reduce_zero_label else void)
        metainfo = {"classes": tuple(classes), "palette": [tuple(colour) for colour in palette]}
        super().__init__(data_root=data_root, data_prefix=data_prefix, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[Results]:
        """Every image with its mask, in the order of their names."""
        images, masks = (Path(self.data_prefix[key]) for key in ("img_path", "seg_map_path"))
        samples = []
        for image in list_images(images):
            mask = masks / image.relative_to(images).with_suffix("")
            mask = mask.with_name(mask.name + self.mask_suffix)
            samples.append({"img_path": str(image), "seg_map_path": str(mask)})
        missing = [sample for sample in samples if not Path(sample["seg_map_path"]).is_file()]
        if missing and (self.on_error == "raise" or len(missing) == len(samples)):
            first = missing[0]
            raise UserError(
                f"image {first['img_path']} has no mask {first['seg_map_path']}"
                + (f" ({len(missing)} of {len(samples)} images have none)" if len(missing) > 1 else ""),
                "add the mask, remove the image, or set on_error='skip'",
            )
        return samples

    def get_data_info(self, idx: int) -> Results:
        """One entry of the data list with what it takes to understand its mask."""
        classes = self.metainfo["classes"]
        return {**super().get_data_info(idx), "label_table": self.label_table, "classes": classes}


@DATASETS.register_module()
class ADE20K(MaskPairs):
    """ADE20K's scene parsing benchmark (ADEChallengeData2016): its 150 classes and its layout."""

    def __init__(self, *, reduce_zero_label: bool = True, **kwargs: Any) -> None:
        from mmseg.datasets import ADE20KDataset

        given = {key: kwargs.pop(key, None) or ADE20KDataset.METAINFO[key] for key in ("classes", "palette")}
        super().__init__(reduce_zero_label=reduce_zero_label, **given, **kwargs)


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Reads `seg_map_path` into `gt_seg_map`, (H, W) uint8: class indices, 255 where there is no class.

    It stands before transforms that change picture and mask together, or after those that change the picture
    alone (evaluation compares in the original size).

    Raises:
        UserError: when the mask is missing, is no index mask, differs in size from the image, or holds a
            label outside the classes; the message names the file.
    """

    def transform(self, results: Results) -> Results:
        """Adds the mask to `results`."""
        path = results["seg_map_path"]
        mask = read_index_mask(path)
        if mask.shape != tuple(results["ori_shape"]):
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (mask.shape, results["ori_shape"]))
            raise UserError(f"mask {path} and image {results['img_path']} differ in size: {sizes}")
        results["gt_seg_map"] = to_classes(mask, results["label_table"], path, results["classes"])
        results["seg_fields"] = ["gt_seg_map"]  # for mmseg's own transforms
        return results


def read_index_mask(path: str | Path) -> NDArray[Any]:
    """The labels (H, W) in an image file: grey values of 1, 8 or 16 bits, or palette indices.

    Raises:
        UserError: when the file is missing, damaged, or holds colours.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            labels = np.array(image)
    except FileNotFoundError:
        raise UserError(f"mask {path} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(f"mask {path} is not an image that can be read") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"mask {path} is truncated or damaged ({error})") from None
    if labels.ndim != 2 or mode == "F":
        raise UserError(
            f"mask {path} holds colours ({mode}), not class indices", "write one grey value a class"
        )
    return labels.astype(np.int32)


def label_table(classes: Sequence[str], values: Iterable[int], void: Iterable[int]) -> NDArray[np.int16]:
    """A table from label to class index: IGNORE for labels in `void`, UNKNOWN for labels that mean nothing.

    Raises:
        UserError: for more than 255 classes, or a number of values other than that of the classes.
    """
    values = list(values)
    if len(classes) > IGNORE:
        raise UserError(f"{len(classes)} classes", f"index masks hold at most {IGNORE} classes")
    if len(values) != len(classes):
        raise UserError(f"{len(values)} label values for {len(classes)} classes", "give one a class")
    void = list(void)
    table = np.full(max([*values, *void, IGNORE]) + 1, UNKNOWN, np.int16)
    table[void] = IGNORE
    table[values] = np.arange(len(values))
    return table


def to_classes(
    mask: NDArray[Any], table: NDArray[np.int16], path: str, classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Labels (H, W) to class indices (H, W).

    Raises:
        UserError: for labels that the table does not know; names the file, the labels and the classes.
    """
    known = table[mask.clip(0, len(table) - 1)]
    unknown = (known == UNKNOWN) | (mask < 0) | (mask >= len(table))
    if unknown.any():
        labels = ", ".join(map(str, np.unique(mask[unknown])[:5]))
        raise UserError(
            f"mask {path} holds label {labels}, outside the {len(classes)} classes",
            "correct the mask or the list of classes, or name the label in void",
        )
    indices: NDArray[np.uint8] = known.astype(np.uint8)
    return indices


def read_classes(path: Path) -> list[str]:
    """The class names in a text file, one a line.

    Raises:
        UserError: if the file is missing or empty, or names a class twice.
    """
    if not path.parent.is_dir():
        raise UserError(f"no data folder {path.parent}", "give the right one with --data DIR")
    if not path.is_file():
        mend = "write one class name a line, in the order of the labels"
        raise UserError(f"data folder {path.parent} lacks {path.name}", mend)
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise UserError(f"{path} " + (f"names {', '.join(twice)} twice" if twice else "names no class"))
    return names
