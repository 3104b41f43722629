"""Detections as COCO results and as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from opsin.core.engine import tiled
from opsin.core.engine.predictor import Image, write_json
from opsin.core.engine.tiled import Piece, Tile
from opsin.detection.metrics.coco_ap import encode_predicted, xywh
from opsin.detection.palette import palette
from opsin.detection.tiling import merge
from opsin.detection.visualization import draw


class TiledPredictor(tiled.TiledPredictor):
    """Merges what is found in the tiles of large pictures; the base where results are instances."""

    def joined(self, pieces: Iterable[Piece], size: tuple[int, int]) -> Any:
        """The instances of all tiles as the picture's."""
        found = [(piece.place, piece.result.pred_instances.cpu()) for piece in pieces]
        return DetDataSample(pred_instances=self.merged(found, size), metainfo={"ori_shape": size})

    def merged(self, found: Sequence[tuple[Tile, InstanceData]], size: tuple[int, int]) -> InstanceData:
        """What was found in the tiles of an image of `size` (H, W) as the image's own."""
        return merge(found, size)


class DetectionPredictor(TiledPredictor):
    """Writes `predictions.json`, COCO's list of results, and `images.json`, which says what its ids mean.

    `images.json` has COCO's `images` (id, file_name, width, height; for videos also `frame`) and
    `categories`. Category ids are those of the training data. Pictures show what scores at least
    `shown_above`; the lists have everything that the model's `test_cfg` keeps.
    """

    shown_above = 0.4

    def record(self, result: Any, image: Image, path: Path) -> dict[str, Any]:
        """Size of the image, and its detections in COCO's terms."""
        found = result.pred_instances.cpu().numpy()
        detections = [
            {"category_id": self._category_id(label), "bbox": xywh(box), "score": float(score)}
            for box, score, label in zip(found.bboxes, found.scores, found.labels, strict=True)
        ]
        if "masks" in found:
            for detection, mask in zip(detections, encode_predicted(found.masks), strict=True):
                detection["segmentation"] = {"size": list(mask["size"]), "counts": _text(mask["counts"])}
        return {"width": image.shape[1], "height": image.shape[0], "detections": detections}

    def picture(self, result: Any, image: Image) -> Image:
        """The image with boxes, names, scores and masks."""
        found = result.pred_instances.cpu()
        found = found[self.shown(found)].numpy()
        classes = self._classes(int(found.labels.max(initial=0)))
        return draw(
            image,
            found.bboxes,
            found.labels.tolist(),
            classes=classes,
            colours=self.meta.get("palette") or palette(len(classes)),
            scores=found.scores.tolist(),
            masks=np.asarray(found.masks) if "masks" in found else None,
        )

    def shown(self, found: Any) -> Tensor:
        """Which of the instances `found` a picture shows, (N,) bool."""
        chosen: Tensor = found.scores >= self.shown_above
        return chosen

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes the two files; images that could not be read have `error` in `images.json`."""
        results, images = [], []
        for image_id, record in enumerate(records, start=1):
            about = {key: value for key, value in record.items() if key not in ("file", "detections")}
            images.append({"id": image_id, "file_name": record["file"], **about})
            results += [{"image_id": image_id, **detection} for detection in record.get("detections", [])]
        names = self.meta.get("classes", ())
        categories = [{"id": self._category_id(label), "name": name} for label, name in enumerate(names)]
        write_json(out / "images.json", {"images": images, "categories": categories})
        write_json(out / "predictions.json", results)

    def _category_id(self, label: int) -> int:
        ids = self.meta.get("category_ids")
        return int(ids[label]) if ids else int(label) + 1

    def _classes(self, largest_label: int) -> list[str]:
        return list(self.meta.get("classes") or map(str, range(largest_label + 1)))


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
