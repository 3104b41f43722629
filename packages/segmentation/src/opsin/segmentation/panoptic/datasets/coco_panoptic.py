"""COCO's panoptic format: one json a split, and one PNG a picture whose colours are segment ids.

A pixel (R, G, B) of the PNG belongs to segment R + 256 G + 65536 B; `segments_info` in the json gives the
segment's category; 0 belongs to nothing. Each pixel has one segment, so semantic map and instances come from
the same file.

Classes are numbered as mmdet's panoptic heads want them: things first, then stuff, each in the order of the
json.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray
from PIL import Image

from opsin.core.data import Dataset, read_image
from opsin.core.data.image import read_bytes
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.visualization import distinct_colours

Results = dict[str, Any]

IGNORE = 255


@DATASETS.register_module()
class CocoPanoptic(Dataset):
    """Pictures with semantic map and instances.

    `metainfo` has `classes`, `thing_classes`, `stuff_classes`, `palette`, and `category_ids`, the json's
    own number of every class.

    Args:
        ann_file: the panoptic json, relative to `data_root`.
        data_prefix: `img` and `seg`, the folders of the pictures and of the id PNGs.
        on_error: see `opsin.core.data.Dataset`.
        **kwargs: `data_root`, `pipeline`, `test_mode`, … of mmengine.

    Raises:
        UserError: if the json is missing, is not COCO panoptic, has more than 255 categories, or names an
            image or category that it does not list.
    """

    def load_data_list(self) -> list[Results]:
        """Every annotated picture, in the order of the annotations."""
        content = self._read()
        categories = sorted(content["categories"], key=lambda category: not category["isthing"])
        if len(categories) > IGNORE:
            raise UserError(
                f"{self.ann_file} has {len(categories)} categories", f"a map holds at most {IGNORE} classes"
            )
        names = {kind: tuple(c["name"] for c in categories if c["isthing"] == kind) for kind in (1, 0)}
        self._metainfo |= {
            "classes": names[1] + names[0],
            "thing_classes": names[1],
            "stuff_classes": names[0],
            "palette": [tuple(colour) for colour in distinct_colours(len(categories)).tolist()],
            "category_ids": tuple(category["id"] for category in categories),
        }
        labels = {category["id"]: label for label, category in enumerate(categories)}
        images = {image["id"]: image for image in content["images"]}
        return [self._sample(entry, images, labels) for entry in content["annotations"]]

    def _read(self) -> Results:
        try:
            content: Results = json.loads(Path(self.ann_file).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.ann_file} is not json: {error}") from None
        lacking = [key for key in ("images", "annotations", "categories") if key not in content]
        if lacking:
            raise UserError(f"{self.ann_file} is not a COCO panoptic file: it lacks {', '.join(lacking)}")
        if any("isthing" not in c for c in content["categories"]) or any(
            "segments_info" not in a for a in content["annotations"]
        ):
            raise UserError(f"{self.ann_file} has no isthing or segments_info", "is it an instances file?")
        return content

    def _sample(self, entry: Results, images: dict[int, Results], labels: dict[int, int]) -> Results:
        image = images.get(entry["image_id"])
        if image is None:
            raise UserError(f"{self.ann_file} annotates image {entry['image_id']}, which it does not list")
        segments = []
        listed = [segment["id"] for segment in entry["segments_info"]]
        if len(set(listed)) < len(listed):
            raise UserError(f"{self.ann_file} lists a segment of {image['file_name']} twice")
        for segment in entry["segments_info"]:
            if segment["category_id"] not in labels:
                raise UserError(
                    f"{self.ann_file}: a segment of {image['file_name']} has category"
                    f" {segment['category_id']}, which is none of the {len(labels)} categories"
                )
            label = labels[segment["category_id"]]
            is_instance = label < len(self._metainfo["thing_classes"]) and not segment.get("iscrowd", 0)
            segments.append(
                {
                    "id": segment["id"],
                    "category": label,
                    "is_instance": is_instance,
                    "iscrowd": segment.get("iscrowd", 0),
                }
            )
        return {
            "img_path": str(Path(self.data_prefix["img"]) / image["file_name"]),
            "img_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "seg_map_path": str(Path(self.data_prefix["seg"]) / entry["file_name"]),
            "segments_info": segments,
        }


@TRANSFORMS.register_module()
class LoadPanoptic(BaseTransform):
    """Reads the id PNG in `seg_map_path`.

    Adds `gt_seg_map` (H, W) uint8, 255 where there is no segment, and for the N things that are no crowd
    `gt_masks` (N, H, W) uint8, `gt_bboxes` (N, 4) float32 (x1 y1 x2 y2 around the mask), `gt_bboxes_labels`
    (N,) int64 and `gt_ignore_flags` (N,) bool.

    Raises:
        UserError: when the PNG is missing, differs in size from the picture, or its ids are not those of
            `segments_info`; names the file.
    """

    def transform(self, results: Results) -> Results:
        """Adds semantic map and instances to `results`."""
        path = results["seg_map_path"]
        ids = read_ids(path)
        if ids.shape != tuple(results["ori_shape"]):
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (ids.shape, results["ori_shape"]))
            raise UserError(f"panoptic mask {path} and image {results['img_path']} differ in size: {sizes}")
        segments = results["segments_info"]
        check_ids(ids, segments, path)
        semantic = np.full(ids.shape, IGNORE, np.uint8)
        for segment in segments:
            semantic[ids == segment["id"]] = segment["category"]
        instances = [segment for segment in segments if segment["is_instance"]]
        masks = ids == np.array([s["id"] for s in instances], ids.dtype)[:, None, None]
        results["gt_seg_map"] = semantic
        results["gt_masks"] = masks.astype(np.uint8)
        results["gt_bboxes"] = boxes_around(masks)
        results["gt_bboxes_labels"] = np.array([s["category"] for s in instances], np.int64)
        results["gt_ignore_flags"] = np.zeros(len(instances), bool)
        return results


@TRANSFORMS.register_module()
class PackPanoptic(BaseTransform):
    """Packs a sample for mmdet's panoptic models: `inputs` (3, H, W) uint8, `data_samples` a `DetDataSample`.

    Args:
        meta_keys: what of the results goes into the sample's meta information, where it is present. The path
            of the id PNG and its segments are there for the metric, which reads them in their own size.

    Raises:
        UserError: at construction, when mmdet is not installed.
    """

    def __init__(
        self,
        meta_keys: tuple[str, ...] = (
            "img_id",
            "img_path",
            "ori_shape",
            "img_shape",
            "scale_factor",
            "seg_map_path",
            "segments_info",
        ),
    ) -> None:
        try:
            from mmdet.datasets.transforms import PackDetInputs
            from mmdet.structures.mask import BitmapMasks
        except ImportError:
            raise UserError(
                "PackPanoptic needs mmdet", "pip install 'opsin-segmentation[panoptic]'"
            ) from None
        self.bitmap_masks = BitmapMasks
        self.pack = PackDetInputs(meta_keys)

    def transform(self, results: Results) -> Results:
        """The packed sample."""
        results = dict(results)
        if "gt_masks" in results:
            results["gt_masks"] = self.bitmap_masks(results["gt_masks"], *results["img"].shape[:2])
            results["gt_seg_map"] = results["gt_seg_map"].astype(np.int64)
        packed: Results = self.pack.transform(results)
        return packed


def read_ids(path: str | Path) -> NDArray[np.int32]:
    """(H, W) segment ids of an id PNG.

    Raises:
        UserError: if it can't be read, or has a palette and an index beyond it (which decoders make black).
    """
    red, green, blue = np.moveaxis(read_image(path).astype(np.int32), -1, 0)
    _check_palette(path)
    ids: NDArray[np.int32] = red + 256 * green + 65536 * blue
    return ids


def _check_palette(path: str | Path) -> None:
    with Image.open(io.BytesIO(read_bytes(Path(path)))) as image:
        if image.mode != "P":
            return
        colours, highest = len(image.getpalette() or ()) // 3, int(np.asarray(image).max())
    if highest >= colours:
        raise UserError(
            f"panoptic mask {path} holds index {highest}, beyond its palette of {colours} colours",
            "write it as RGB",
        )


def boxes_around(masks: NDArray[Any]) -> NDArray[np.float32]:
    """Masks (N, H, W), none empty, to boxes (N, 4): x1 y1 x2 y2, the far edge outside the last pixel."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def check_ids(ids: NDArray[Any], segments: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Compares the ids (H, W) of a PNG with its `segments_info`.

    Raises:
        UserError: if a segment is painted but not listed, or listed but not painted; names `path`.
    """
    painted = set(np.unique(ids).tolist()) - {0}
    listed = {segment["id"] for segment in segments}
    if painted != listed:
        unknown, absent = sorted(painted - listed), sorted(listed - painted)
        problem = f"segment {unknown[0]} is painted but not listed" if unknown else ""
        problem = problem or f"segment {absent[0]} is listed but not painted"
        raise UserError(f"panoptic mask {path} does not match its segments_info: {problem}")
