"""Prediction with dense models: depth maps, normals or index masks as files, and pictures for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, PixelData
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.engine.predictor import Source, write_json
from opsin.core.engine.tiled import Piece, TiledPredictor
from opsin.core.errors import UserError
from opsin.segmentation.dense_prediction.datasets.nyuv2 import MILLIMETRES, encode_normals
from opsin.segmentation.dense_prediction.visualization import draw_depth, draw_normals
from opsin.segmentation.instances import coco_results, draw_instances
from opsin.segmentation.tiling import blended, stitched
from opsin.segmentation.visualization import class_areas, distinct_colours, draw_semantic

Rgb = NDArray[np.uint8]
LARGEST_DEPTH = 65535 / MILLIMETRES  # metres that 16 bits hold


class DensePredictor(TiledPredictor):
    """Writes what the model gives, in the forms that the data sets have.

    * `depth/NAME.png`: 16-bit millimetres; the picture has the depth in colours and a scale in metres;
    * `normals/NAME.png`: colours of x right, y up, z towards the camera;
    * `labels/NAME.png`: the class's index, from 0; the picture is an overlay with a legend;
    * objects are drawn into the picture; a score below 0.3 is not;
    * `predictions.json`: sizes, ranges, areas, objects as COCO's results; for classes also their names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        count = int(getattr(getattr(self.model, "output", None), "num_classes", 0))
        self.classes = tuple(self.meta.get("classes") or (f"class {i}" for i in range(count)))
        self.palette = self.meta.get("palette") or distinct_colours(len(self.classes)).tolist()
        self.category_ids = self.meta.get("category_ids") or range(1, len(self.classes) + 1)

    def joined(self, pieces: Iterable[Piece], size: tuple[int, int]) -> BaseDataElement:
        """The map of a picture from those of its tiles: depth and normals blend, label maps are stitched.

        Raises:
            UserError: for a model that finds objects.
        """
        pieces = iter(pieces)
        first = next(pieces)
        every = chain([first], pieces)
        if "pred_instances" in first.result:
            raise UserError("this model's objects can't be joined over tiles", "leave tiles.size unset")
        if "pred_sem_seg" in first.result:
            labels = stitched((replace(p, result=_labels(p.result)) for p in every), size)
            return BaseDataElement(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))
        name = "pred_depth_map" if "pred_depth_map" in first.result else "pred_normals"
        maps = (replace(p, result=p.result.get(name).data.cpu().numpy()) for p in every)
        whole = torch.from_numpy(blended(maps, size, len(first.result.get(name).data)))
        joined = whole if name == "pred_depth_map" else F.normalize(whole, dim=0)
        return BaseDataElement(**{name: PixelData(data=joined)})

    def record(self, result: Any, image: Rgb, path: Path) -> dict[str, Any]:
        """Size of the picture; nearest, median and farthest depth; share of every class."""
        record: dict[str, Any] = {"height": image.shape[0], "width": image.shape[1]}
        if "pred_depth_map" in result:
            depth = _depth(result)
            nearest, median, farthest = np.percentile(depth, (0, 50, 100))
            record["depth"] = {"nearest": nearest, "median": median, "farthest": farthest}
        if "pred_sem_seg" in result:
            record["areas"] = class_areas(_labels(result), self.classes)
        if "pred_instances" in result:
            record["instances"] = list(coco_results(result.pred_instances, self.category_ids))
        return record

    def picture(self, result: Any, image: Rgb) -> Rgb:
        """The picture with what was predicted."""
        if "pred_depth_map" in result:
            return draw_depth(image, _depth(result))
        if "pred_normals" in result:
            return draw_normals(image, _normals(result))
        if "pred_instances" in result:
            return draw_instances(image, result.pred_instances, self.classes, self.palette)
        return draw_semantic(image, _labels(result), self.classes, self.palette)

    def save(self, result: Any, image: Rgb, source: Source, out: Path) -> None:
        """Writes the map itself."""
        name = source.name.with_suffix(".png")
        if "pred_depth_map" in result:
            millimetres = (_depth(result).clip(0, LARGEST_DEPTH) * MILLIMETRES).round()
            write_image(out / "depth" / name, millimetres.astype(np.uint16))
        if "pred_normals" in result:
            write_image(out / "normals" / name, encode_normals(_normals(result)))
        if "pred_sem_seg" in result:
            write_image(out / "labels" / name, _labels(result))

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes `predictions.json`."""
        about = {"classes": list(self.classes)} if self.classes else {}
        write_json(out / "predictions.json", {**about, "images": records})


def _depth(result: Any) -> NDArray[Any]:
    depth: NDArray[Any] = result.pred_depth_map.data[0].cpu().numpy()
    return depth


def _normals(result: Any) -> NDArray[Any]:
    normals: NDArray[Any] = result.pred_normals.data.cpu().numpy().transpose(1, 2, 0)
    return normals


def _labels(result: Any) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = result.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
    return labels
