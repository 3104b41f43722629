"""Prediction with weakly supervised models: classes with boxes, or seeds of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.engine.predictor import Predictor, Source, write_json
from opsin.segmentation.visualization import class_areas, distinct_colours, draw_semantic
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.datasets.seed_files import write_seeds

Rgb = NDArray[np.uint8]

MOST_CLASSES = 5
GREEN = (0, 255, 0)


class WeaklySupervisedPredictor(Predictor):
    """Writes pictures, a json, and for seeds index masks.

    * A localiser: `pictures/NAME.png`, the map in colours and the box; in `predictions.json` of each picture
      the five best classes with their scores, and `box`, x0 y0 x1 y1 in its pixels.
    * A seed network: `masks/NAME.png`, 0 is background; `maps/NAME.npz`, see `seed_files`;
      `pictures/NAME.png` with a legend; in `predictions.json` the areas of the classes.
    * Refined seeds: the same without maps, and `boundaries/NAME.png`, white where classes meet.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        count = int(getattr(self.model, "num_classes", 0) or self.model.network.num_classes)
        self.classes = tuple(self.meta.get("classes") or (f"class {i}" for i in range(count)))
        self.palette = self.meta.get("palette") or distinct_colours(len(self.classes)).tolist()

    def record(self, result: WeakSample, image: Rgb, path: Path) -> dict[str, Any]:
        """Classes and box, or areas."""
        height, width = image.shape[:2]
        if "pred_box" not in result:
            return {"height": height, "width": width, "areas": class_areas(_seed(result), self.classes)}
        best = result.pred_scores.topk(min(MOST_CLASSES, len(result.pred_scores)))
        classes = [
            {"class": self.classes[index], "score": round(score, 4)}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return {"height": height, "width": width, "classes": classes, "box": box_in_picture(result, image)}

    def picture(self, result: WeakSample, image: Rgb) -> Rgb:
        """Map and box, or overlay and legend."""
        if "pred_box" not in result:
            return draw_semantic(image, _seed(result), self.classes, self.palette)
        return draw_box(image, heat_in_picture(result, image), box_in_picture(result, image))

    def save(self, result: WeakSample, image: Rgb, source: Source, out: Path) -> None:
        """Writes index mask, and maps or boundaries."""
        if "pred_box" in result:
            return
        write_image(out / "masks" / source.name.with_suffix(".png"), _seed(result))
        if "pred_map" in result:
            boundary = (255 * result.pred_map.numpy()).round().astype(np.uint8)
            write_image(out / "boundaries" / source.name.with_suffix(".png"), boundary)
        else:
            maps = result.seed_maps.float().cpu().numpy()
            write_seeds(out / "maps" / source.name.with_suffix(".npz"), maps)

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes `predictions.json`: the classes in the order of their indices, and the records."""
        write_json(out / "predictions.json", {"classes": list(self.classes), "images": records})


def _seed(result: WeakSample) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = result.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
    return labels


def box_in_picture(result: WeakSample, image: Rgb) -> list[float]:
    """The box x0, y0, x1, y1 in pixels of the picture, within it."""
    by_x, by_y, offset = result.view
    factors = np.array([by_x, by_y] * 2)
    sides = np.array([image.shape[1], image.shape[0]] * 2)
    box = ((result.pred_box.numpy() + offset) / factors).clip(0, sides)
    return [round(float(value), 1) for value in box]


def heat_in_picture(result: WeakSample, image: Rgb) -> NDArray[np.float32]:
    """The map (H, W) in the picture's frame; 0 beyond the view."""
    by_x, by_y, offset = result.view
    to_picture = np.array([[1 / by_x, 0, offset / by_x], [0, 1 / by_y, offset / by_y]], np.float32)
    heat: NDArray[np.float32] = cv2.warpAffine(
        result.pred_map.numpy().astype(np.float32), to_picture, image.shape[1::-1], flags=cv2.INTER_LINEAR
    )
    return heat


def draw_box(image: Rgb, heat: NDArray[Any], box: list[float]) -> Rgb:
    """The picture with a map (H, W) from 0 (blue) to 1 (red) over it, and a box."""
    colours = cv2.applyColorMap((heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    drawn = np.ascontiguousarray((0.6 * image + 0.4 * colours).round().astype(np.uint8))
    left, top, right, bottom = (round(value) for value in box)
    thickness = max(1, min(image.shape[:2]) // 100)
    cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), GREEN, thickness)
    return drawn
