"""Pictures of detections: boxes with labels, and tinted masks, readable at any image size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.detection.palette import Colour

Image = NDArray[np.uint8]

SMALLEST_SIDE = 480
"""Smaller images are enlarged before drawing, so that the labels can be read and do not hide the objects."""


def draw(
    image: Image,
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    *,
    classes: Sequence[str],
    colours: Sequence[Colour],
    scores: Sequence[float] | None = None,
    masks: NDArray[np.bool_] | None = None,
) -> Image:
    """A copy of the image with its objects drawn on it.

    Args:
        image: RGB uint8 (H, W, 3).
        boxes: (N, 4), x1 y1 x2 y2 in pixels of the image.
        labels: N class indices into `classes` and `colours`.
        classes: the names.
        colours: one RGB colour a class.
        scores: N confidences, shown after the name.
        masks: (N, H, W), tinted in the class colour with an outline.

    Returns:
        RGB uint8; enlarged by a whole factor if the shorter side has less than `SMALLEST_SIDE` pixels.
    """
    factor = max(1, round(SMALLEST_SIDE / min(image.shape[:2])))
    canvas = (
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        if factor > 1
        else image.copy()
    )
    order = (
        np.argsort(scores, kind="stable") if scores is not None else range(len(boxes))
    )  # the surest on top
    if masks is not None:
        for i in order:
            _tint(canvas, masks[i], colours[labels[i]], factor)
    thickness = max(2, round(min(canvas.shape[:2]) / 300))
    for i in order:
        corners = np.rint(np.asarray(boxes[i], float) * factor).astype(int)
        _rectangle(canvas, corners, colours[labels[i]], thickness)
    for i in order:
        name = classes[labels[i]]
        text = name if scores is None else f"{name} {scores[i]:.2f}"
        x, y = np.rint(np.asarray(boxes[i][:2], float) * factor).astype(int)
        _label(canvas, text, (int(x), int(y)), colours[labels[i]], thickness)
    return canvas


def _tint(canvas: Image, mask: NDArray[np.bool_], colour: Colour, factor: int, opacity: float = 0.45) -> None:
    large = cv2.resize(mask.astype(np.uint8), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    inside = large > 0
    canvas[inside] = (canvas[inside] * (1 - opacity) + np.array(colour) * opacity).astype(np.uint8)
    outlines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, colour, 1, cv2.LINE_AA)


def _rectangle(canvas: Image, corners: NDArray[np.int64], colour: Colour, thickness: int) -> None:
    x1, y1, x2, y2 = map(int, corners)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), thickness + 2, cv2.LINE_AA)  # seen on any background
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)


def _label(canvas: Image, text: str, corner: tuple[int, int], colour: Colour, thickness: int) -> None:
    """A filled tag above the box's corner, or inside the box where there is no room above."""
    size = 0.25 * thickness
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    tag = (width + 6, height + below + 4)
    x = int(np.clip(corner[0] - thickness // 2, 0, max(0, canvas.shape[1] - tag[0])))
    y = corner[1] - tag[1] if corner[1] >= tag[1] else max(0, corner[1])
    cv2.rectangle(canvas, (x, y), (x + tag[0], y + tag[1]), colour, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 130 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 3, y + height + 2), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
