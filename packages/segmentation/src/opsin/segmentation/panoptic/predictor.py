"""Prediction with panoptic models: id PNGs and json in COCO's panoptic format, instances, overlays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.engine.predictor import Source, write_json
from opsin.core.engine.tiled import Piece, TiledPredictor
from opsin.segmentation.instances import coco_results
from opsin.segmentation.panoptic import tiling
from opsin.segmentation.panoptic.segments import Segment, colours, segments_info, segments_of
from opsin.segmentation.panoptic.visualization import draw_panoptic
from opsin.segmentation.visualization import distinct_colours

Rgb = NDArray[np.uint8]


class PanopticPredictor(TiledPredictor):
    """Writes what COCO's tools read.

    * `panoptic/NAME.png`: segment ids as colours, a shade of the class's colour for every thing;
    * `panoptic.json`: `images`, `annotations` with their `segments_info`, `categories`;
    * `instances.json`: boxes, masks and scores as COCO's list of results;
    * `pictures/NAME.png`: overlay and legend.

    Category ids are those of the training data, counted from 1 if the checkpoint does not say them. For
    videos there are no PNGs, only pictures and segments of every frame. Of pictures that were cut into tiles
    there are no instances: the scores of an object's parts would not be those of the object.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_classes = int(self._head().num_classes)
        self.classes = tuple(self.meta.get("classes") or (f"class {i}" for i in range(self.num_classes)))
        self.palette = self.meta.get("palette") or distinct_colours(self.num_classes).tolist()
        self.category_ids = self.meta.get("category_ids") or range(1, self.num_classes + 1)
        self.names: dict[Path, Path] = {}  # of the outputs, by input

    def _head(self) -> Any:
        return getattr(self.model, "panoptic_fusion_head", None) or self.model.bbox_head

    def joined(self, pieces: Iterable[Piece], size: tuple[int, int]) -> BaseDataElement:
        """The panoptic map of a picture from those of its tiles."""
        maps = (replace(piece, result=_panoptic(piece.result)) for piece in pieces)
        whole = tiling.joined(maps, size, int(self._head().num_things_classes))
        return BaseDataElement(pred_panoptic_seg=PixelData(sem_seg=torch.from_numpy(whole)[None]))

    def _segments(self, result: Any) -> tuple[NDArray[Any], list[Segment]]:
        panoptic = _panoptic(result)
        return panoptic, segments_of(panoptic, self.num_classes, self.palette)

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """What to predict on; remembers how the PNGs will be named."""
        sources = super().sources(inputs)
        self.names = {source.path: source.name.with_suffix(".png") for source in sources}
        return sources

    def record(self, result: Any, image: Rgb, path: Path) -> dict[str, Any]:
        """Size of the picture, its segments, and its things as COCO's results."""
        _, segments = self._segments(result)
        return {
            "png": self.names.get(path, Path(path.stem + ".png")).as_posix(),
            "height": image.shape[0],
            "width": image.shape[1],
            "segments_info": segments_info(segments, self.category_ids),
            "instances": list(coco_results(result.pred_instances, self.category_ids))
            if "pred_instances" in result
            else [],
        }

    def picture(self, result: Any, image: Rgb) -> Rgb:
        """Overlay and legend."""
        panoptic, segments = self._segments(result)
        return draw_panoptic(image, panoptic, segments, self.classes, self.palette)

    def save(self, result: Any, image: Rgb, source: Source, out: Path) -> None:
        """Writes the id PNG."""
        panoptic, segments = self._segments(result)
        write_image(out / "panoptic" / source.name.with_suffix(".png"), colours(panoptic, segments))

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes the two json files; a picture that could not be read has `error` among the images."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for image_id, record in enumerate(records, start=1):
            image = {"id": image_id, "file_name": record["file"]}
            image |= {key: record[key] for key in ("height", "width", "frame", "error") if key in record}
            images.append(image)
            if "segments_info" in record:
                entry = {"image_id": image_id, "segments_info": record["segments_info"]}
                annotations.append(entry if "frame" in record else {**entry, "file_name": record["png"]})
            results += [{"image_id": image_id, **found} for found in record.get("instances", [])]
        write_json(
            out / "panoptic.json",
            {"images": images, "annotations": annotations, "categories": self._categories()},
        )
        write_json(out / "instances.json", results)

    def _categories(self) -> list[dict[str, Any]]:
        things = int(self._head().num_things_classes)
        numbered = zip(self.category_ids, self.classes, strict=False)
        return [
            {"id": int(number), "name": name, "isthing": int(label < things)}
            for label, (number, name) in enumerate(numbered)
        ]


def _panoptic(result: Any) -> NDArray[Any]:
    panoptic: NDArray[Any] = result.pred_panoptic_seg.sem_seg[0].cpu().numpy()
    return panoptic
