"""Detected text as polygons, in the form that the field's evaluations take, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from opsin.core.engine.predictor import Image, Source
from opsin.core.engine.tiled import Tile
from opsin.core.files import write_atomically
from opsin.detection.predictor import TiledPredictor
from opsin.ocr.text_detection.polygons import Polygon
from opsin.ocr.text_detection.tiling import merge_texts
from opsin.ocr.text_detection.visualization import draw


class TextPredictor(TiledPredictor):
    """Writes `predictions.json`, `results/res_NAME.txt` for each picture, and pictures with outlines.

    `predictions.json` is a list; a picture has `file`, `width`, `height` and `texts`, surest first: `polygon`
    (corners x, y in pixels, clockwise) and `score`. A text file is that of ICDAR's evaluations: a line
    `x1,y1,x2,y2,…` in whole pixels a text.

    A config's `tiles=dict(size=…, overlap=…)` (pixels) cuts pictures that are larger than a tile and merges
    what is found in the tiles; the overlap should be as wide as the longest text.
    """

    def merged(self, found: Sequence[tuple[Tile, InstanceData]], size: tuple[int, int]) -> InstanceData:
        """What was found in the tiles of an image of `size` (H, W) as the image's own."""
        return merge_texts(found, size)

    def record(self, result: Any, image: Image, path: Path) -> dict[str, Any]:
        """Size of the image, and its texts."""
        found = result.pred_instances.cpu()
        polygons = [np.round(polygon.astype(float), 1).tolist() for polygon in found.polygons]
        texts = [
            {"polygon": polygon, "score": round(score, 4)}
            for polygon, score in zip(polygons, found.scores.tolist(), strict=True)
        ]
        return {"width": image.shape[1], "height": image.shape[0], "texts": texts}

    def picture(self, result: Any, image: Image) -> Image:
        """The image with every text outlined."""
        return draw(image, result.pred_instances.polygons)

    def save(self, result: Any, image: Image, source: Source, out: Path) -> None:
        """Writes the picture's text file."""
        name = source.name.with_name(f"res_{source.name.stem}.txt")
        write_atomically(out / "results" / name, result_lines(result.pred_instances.polygons).encode())


def result_lines(polygons: Sequence[Polygon]) -> str:
    """A line `x1,y1,x2,y2,…` in whole pixels for each polygon, as ICDAR's evaluations read them."""
    lines = (",".join(str(int(v)) for v in np.rint(polygon).flatten()) for polygon in polygons)
    return "".join(f"{line}\r\n" for line in lines)
