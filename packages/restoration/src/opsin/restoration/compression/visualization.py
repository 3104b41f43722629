"""Pictures of what compression did, and rate-distortion curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.files import write_atomically
from opsin.restoration.visualization import side_by_side

ERROR_GAIN = 4  # how many times too bright errors are drawn


def comparison(picture: NDArray[np.uint8], decoded: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """The picture, what its file decodes to, and their difference (times 4, grey), with a caption below.

    Args:
        picture: RGB uint8 (H, W, 3).
        decoded: likewise.
        caption: one line of ASCII.
    """
    error = np.abs(picture.astype(np.int16) - decoded).mean(-1, keepdims=True) * ERROR_GAIN
    error = np.repeat(error.clip(0, 255).astype(np.uint8), 3, axis=2)
    row = side_by_side((picture, decoded, error))
    band = np.full((24, row.shape[1], 3), 255, np.uint8)
    cv2.putText(band, caption, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((row, band))


def plot_curves(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, quality: str) -> None:
    """Draws rate-distortion curves into a picture file, one line a codec.

    Args:
        curves: name to (bits per pixel, quality) points.
        path: `.png`, `.svg` or `.pdf`.
        quality: label of the vertical axis.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="bits per pixel", ylabel=quality)
    for name, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    content = BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_atomically(path, content.getvalue())
