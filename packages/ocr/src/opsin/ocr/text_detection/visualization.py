"""Pictures of detected text: every instance outlined and tinted in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.detection.palette import palette
from opsin.ocr.text_detection.polygons import Polygon

Image = NDArray[np.uint8]

SMALLEST_SIDE = 480
"""Smaller images are enlarged before drawing, so that outlines do not hide the text."""

COLOURS = palette(12)
OPACITY = 0.3


def draw(image: Image, polygons: Sequence[Polygon]) -> Image:
    """A copy of the image with the polygons drawn on it; neighbours in the list differ in colour.

    Args:
        image: RGB uint8 (H, W, 3).
        polygons: (N, 2) each, in pixels of the image.

    Returns:
        RGB uint8; enlarged by a whole factor if the shorter side has less than `SMALLEST_SIDE` pixels.
    """
    factor = max(1, round(SMALLEST_SIDE / min(image.shape[:2])))
    canvas = (
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        if factor > 1
        else image.copy()
    )
    outlines = [np.rint(np.asarray(polygon) * factor).astype(np.int32) for polygon in polygons]
    tinted = canvas.copy()
    for index, outline in enumerate(outlines):
        cv2.fillPoly(tinted, [outline], COLOURS[index % len(COLOURS)])
    canvas = cv2.addWeighted(tinted, OPACITY, canvas, 1 - OPACITY, 0)
    thickness = max(2, round(min(canvas.shape[:2]) / 400))
    for index, outline in enumerate(outlines):
        cv2.polylines(canvas, [outline], True, (0, 0, 0), thickness + 2, cv2.LINE_AA)  # on any background
        cv2.polylines(canvas, [outline], True, COLOURS[index % len(COLOURS)], thickness, cv2.LINE_AA)
    return canvas
