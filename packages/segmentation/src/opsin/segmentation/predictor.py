"""Prediction with semantic segmentation models: index masks, overlays, and the areas of the classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.engine.predictor import Source, write_json
from opsin.core.engine.tiled import Piece, TiledPredictor
from opsin.segmentation.tiling import stitched
from opsin.segmentation.visualization import class_areas, distinct_colours, draw_semantic

Rgb = NDArray[np.uint8]


class SegmentationPredictor(TiledPredictor):
    """Writes index masks, pictures, and a json.

    * `masks/NAME.png`: a pixel is the index of its class, as in the training masks of the plain layout;
    * `pictures/NAME.png`: the classes' colours over the picture, and a legend;
    * `predictions.json`: `classes` in the order of their indices; `images` with `areas` in pixels by class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        head = getattr(self.model, "decode_head", None) or self.model.bbox_head
        count = int(head.num_classes)
        self.classes = tuple(self.meta.get("classes") or (f"class {i}" for i in range(count)))
        self.palette = self.meta.get("palette") or distinct_colours(count).tolist()

    def joined(self, pieces: Iterable[Piece], size: tuple[int, int]) -> SegDataSample:
        """The label map of a picture from those of its tiles."""
        labels = stitched((replace(piece, result=label_map(piece.result)) for piece in pieces), size)
        return SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))

    def record(self, result: Any, image: Rgb, path: Path) -> dict[str, Any]:
        """Size of the picture and pixels of every class that was found in it."""
        labels = label_map(result)
        height, width = labels.shape
        return {"height": height, "width": width, "areas": class_areas(labels, self.classes)}

    def picture(self, result: Any, image: Rgb) -> Rgb:
        """Overlay and legend."""
        return draw_semantic(image, label_map(result), self.classes, self.palette)

    def save(self, result: Any, image: Rgb, source: Source, out: Path) -> None:
        """Writes the index mask."""
        write_image(out / "masks" / source.name.with_suffix(".png"), label_map(result))

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes `predictions.json`: the classes in the order of their indices, and the records."""
        write_json(out / "predictions.json", {"classes": list(self.classes), "images": records})


def label_map(result: Any) -> NDArray[np.uint8]:
    """(H, W) class indices of mmseg's result."""
    labels: NDArray[np.uint8] = result.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
    return labels
