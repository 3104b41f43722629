"""Objects of a picture as COCO's results, and drawn for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET, segments_of
from opsin.segmentation.panoptic.visualization import draw_panoptic

Rgb = NDArray[np.uint8]
SHOWN = 0.3  # the least score of an object that is drawn
LINE = 2  # pixels of a box's outline


def coco_results(found: Any, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Each object as an entry of COCO's list of results, without its image's id.

    Args:
        found: mmdet's `InstanceData`: `bboxes` (N, 4) x1 y1 x2 y2, `scores`, `labels`, and perhaps `masks`.
        category_ids: number of each class.
    """
    found = found.cpu().numpy()
    codes: Sequence[Any] = [None] * len(found.scores)
    if "masks" in found and len(found.scores):
        codes = rle.encode(np.asfortranarray(found.masks.transpose(1, 2, 0).astype(np.uint8)))
    for box, score, label, code in zip(found.bboxes, found.scores, found.labels, codes, strict=True):
        result = {
            "category_id": int(category_ids[label]),
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": float(score),
        }
        if code is not None:
            result["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode()}
        yield result


def draw_instances(
    image: Rgb, found: Any, classes: Sequence[str], palette: Sequence[Sequence[int]], least: float = SHOWN
) -> Rgb:
    """Overlay and legend, (H', W', 3): the masks of the objects, the best on top, or outlines of their boxes.

    Args:
        image: RGB uint8 (H, W, 3).
        found: as in `coco_results`.
        classes: names of the classes.
        palette: their colours.
        least: the score from which an object is drawn.
    """
    found = found.cpu().numpy()
    drawn = np.full(image.shape[:2], len(classes))
    for number, index in enumerate(np.argsort(found.scores, kind="stable"), start=1):
        if found.scores[index] >= least:
            mask = found.masks[index] if "masks" in found else outline(found.bboxes[index], image.shape[:2])
            drawn[mask] = found.labels[index] + INSTANCE_OFFSET * number
    segments = segments_of(drawn, len(classes), palette)
    return draw_panoptic(image, drawn, segments, classes, palette)


def outline(box: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """(H, W): the border of a box x1 y1 x2 y2, inside it."""
    left, top, right, bottom = (round(float(v)) for v in box)
    border = np.zeros(size, bool)
    border[top:bottom, left:right] = True
    border[top + LINE : bottom - LINE, left + LINE : right - LINE] = False
    return border
