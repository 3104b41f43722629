"""Pictures with masks of single objects, in the layouts that people have.

    annotations/x.json, a folder of pictures        COCO instances (COCO, EntitySeg): polygons or run lengths
    annotations/x.json, pictures, a folder of PNGs  COCO panoptic (COCONut): every segment is a mask
    DIS-TR/{im/x.jpg, gt/x.png}                     DIS5K: one mask a picture, white on black
    sa_1.jpg, sa_1.json                             SA-1B: run lengths, one file a picture

An entry has `img_path` and one of `segments` (COCO's segmentations), `seg_map_path` with `segments_info`,
`mask_path`, or `segments_path` (SA-1B's file, read with the picture since there are millions of them).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opsin.core.data import Dataset, list_images
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.panoptic.datasets.coco_panoptic import CocoPanoptic

Results = dict[str, Any]


@DATASETS.register_module()
class CocoMasks(Dataset):
    """Pictures with COCO's instance annotations; crowds are left out, and pictures without a mask.

    Args:
        ann_file: the json, relative to `data_root`.
        data_prefix: `img`, the folder of the pictures.
        on_error: see `opsin.core.data.Dataset`.
        **kwargs: `data_root`, `pipeline`, `test_mode`, … of mmengine.

    Raises:
        UserError: if the json is missing, is no COCO file, or annotates an image that it does not list.
    """

    def load_data_list(self) -> list[Results]:
        """Every picture with a mask, in the order of the json."""
        content = read_json(self.ann_file)
        lacking = [key for key in ("images", "annotations") if key not in content]
        if lacking:
            raise UserError(f"{self.ann_file} is not a COCO file: it lacks {', '.join(lacking)}")
        segments: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in segments:
                raise UserError(
                    f"{self.ann_file} annotates image {annotation['image_id']}, which it does not list"
                )
            if not annotation.get("iscrowd", 0):
                segments[annotation["image_id"]].append(_segmentation(annotation, self.ann_file))
        folder = Path(self.data_prefix["img"])
        return [
            {"img_path": str(folder / image["file_name"]), "segments": segments[image["id"]]}
            for image in content["images"]
            if segments[image["id"]]
        ]


@DATASETS.register_module()
class CocoPanopticMasks(CocoPanoptic):
    """Pictures with COCO's panoptic annotations, every segment of which is a mask; see `CocoPanoptic`."""


@DATASETS.register_module()
class DIS5K(Dataset):
    """Pictures with one mask each, as the dichotomous image segmentation set DIS5K keeps them.

    Args:
        split: the folder in `data_root` with `im` and `gt`: `DIS-TR`, `DIS-VD`, `DIS-TE1` … `DIS-TE4`.
        data_root: folder of the splits.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: if a folder is missing, or the mask of a picture.
    """

    def __init__(self, *, split: str, data_root: str = "", **kwargs: Any) -> None:
        super().__init__(
            data_root=data_root, data_prefix={"img": f"{split}/im", "mask": f"{split}/gt"}, **kwargs
        )

    def load_data_list(self) -> list[Results]:
        """Every picture, in the order of their names."""
        images, masks = (Path(self.data_prefix[key]) for key in ("img", "mask"))
        samples = []
        for image in list_images(images):
            mask = (masks / image.relative_to(images)).with_suffix(".png")
            if not mask.is_file():
                raise UserError(f"image {image} has no mask {mask}", "add the mask or remove the image")
            samples.append({"img_path": str(image), "mask_path": str(mask)})
        return samples


@DATASETS.register_module()
class SA1B(Dataset):
    """Pictures with a json of the same name beside them, as SA-1B's archives unpack.

    Args:
        folder: of both, relative to `data_root`; subfolders count.
        data_root: folder of the data set.
        kwargs: `pipeline`, `test_mode`, `on_error`, … of `opsin.core.data.Dataset`.

    Raises:
        UserError: if the folder is missing, or the json of a picture.
    """

    def __init__(self, *, folder: str = "", data_root: str = "", **kwargs: Any) -> None:
        super().__init__(data_root=data_root, data_prefix={"img": folder}, **kwargs)

    def load_data_list(self) -> list[Results]:
        """Every picture, in the order of their names."""
        samples = []
        for image in list_images(self.data_prefix["img"] or self.data_root):
            segments = image.with_suffix(".json")
            if not segments.is_file():
                raise UserError(f"image {image} has no {segments.name} beside it", "is it an SA-1B folder?")
            samples.append({"img_path": str(image), "segments_path": str(segments)})
        return samples


def read_json(path: str | Path) -> Results:
    """The object in a json file.

    Raises:
        UserError: if it is missing or no json object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not json: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a json object")
    return content


def sa1b_segments(path: str | Path) -> list[Any]:
    """The segmentations of one of SA-1B's files.

    Raises:
        UserError: if it can't be read or is no such file.
    """
    content = read_json(path)
    if "annotations" not in content:
        raise UserError(f"{path} is not an SA-1B file: it lacks annotations")
    return [_segmentation(annotation, path) for annotation in content["annotations"]]


def _segmentation(annotation: Results, path: str | Path) -> Any:
    if not annotation.get("segmentation"):
        raise UserError(f"{path}: annotation {annotation.get('id')} has no segmentation")
    return annotation["segmentation"]
