"""Pictures for people: boxes on frames, and how scores and templates went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.files import write_atomically
from opsin.tracking.tracker import LOST_SCORE, Tracked

Image = NDArray[np.uint8]
COLOURS = ((46, 204, 64), (255, 133, 27), (0, 116, 217), (240, 18, 190), (255, 220, 0), (127, 219, 255))
"""RGB, one a target; they repeat."""

LOST_COLOUR = (255, 65, 54)


def draw(image: Image, tracks: Sequence[Tracked], *, note: str = "") -> Image:
    """A copy of an RGB frame with each target's box, number and score; lost ones are red and say so.

    Args:
        image: (H, W, 3).
        tracks: one a target.
        note: written in the upper left corner (a frame that could not be read).
    """
    drawn = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 240))
    scale = max(0.35, min(image.shape[:2]) / 720)
    for number, tracked in enumerate(tracks):
        colour = LOST_COLOUR if tracked.lost else COLOURS[number % len(COLOURS)]
        x, y, w, h = (round(value) for value in tracked.box)
        cv2.rectangle(drawn, (x, y), (x + w, y + h), colour, thickness)
        parts = [str(number + 1)] if len(tracks) > 1 else []
        parts += [f"{tracked.score:.2f}"] if tracked.score is not None else []
        parts += ["LOST"] if tracked.lost else []
        _write(drawn, " ".join(parts), (x, y), scale, thickness, colour)
    _write(drawn, note, (2, round(30 * scale)), scale, thickness, LOST_COLOUR)
    return drawn


def _write(
    image: Image,
    text: str,
    corner: tuple[int, int],
    scale: float,
    thickness: int,
    colour: tuple[int, int, int],
) -> None:
    """Text on a dark ground above `corner`, or below it where there is no room."""
    if not text:
        return
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = min(max(0, corner[0]), max(0, image.shape[1] - width))
    above = corner[1] - base - thickness
    y = above if above >= height else corner[1] + height + 3
    cv2.rectangle(image, (x, y - height - 1), (x + width, y + base), (0, 0, 0), -1)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


def plot_scores(path: Path, tracks: Sequence[Sequence[Tracked]]) -> None:
    """A picture of each target's score over the frames, its template updates, and where it was lost.

    Args:
        path: of the PNG.
        tracks: one list a target, one entry a frame.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + 1.9 * len(tracks)), layout="constrained")
    axes = figure.subplots(len(tracks), squeeze=False)[:, 0]
    for number, (axis, target) in enumerate(zip(axes, tracks, strict=True)):
        frames = np.arange(1, len(target) + 1)
        scores = [np.nan if tracked.score is None else tracked.score for tracked in target]
        colour = np.array(COLOURS[number % len(COLOURS)]) / 255
        axis.plot(frames, scores, color=colour, lw=1.2, label="score")
        axis.axhline(LOST_SCORE, color="grey", lw=0.6, ls=":")
        updates = frames[[tracked.updated for tracked in target]]
        axis.vlines(updates, 0, 1, color="black", lw=0.6, alpha=0.5, label="template update")
        lost = np.array([tracked.lost for tracked in target])
        axis.fill_between(
            frames, 0, 1, where=lost, step="mid", color=np.array(LOST_COLOUR) / 255, alpha=0.25, label="lost"
        )
        axis.set(ylim=(0, 1.02), xlim=(1, max(2, len(target))), ylabel=f"target {number + 1}")
    axes[0].legend(loc="lower left", fontsize=8, ncols=3)
    axes[-1].set_xlabel("frame")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_atomically(path, picture.getvalue())
