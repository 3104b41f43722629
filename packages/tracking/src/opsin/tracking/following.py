"""Following targets through a video into files: a rendered video, boxes as JSON and CSV, a plot of scores.

OUT/NAME.mp4   OUT/NAME.json   OUT/NAME.csv   OUT/NAME_scores.png
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.engine.predictor import make_folder, write_json
from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.tracking.crops import Box
from opsin.tracking.tracker import Tracked, Tracker
from opsin.tracking.video import Frame, Video
from opsin.tracking.visualization import draw, plot_scores

Image = NDArray[np.uint8]
Row = dict[str, Any]
COLUMNS = ("frame", "target", "x", "y", "w", "h", "score", "lost", "updated", "error")


def follow_video(
    tracker: Tracker,
    video: Video,
    boxes: Sequence[Box],
    out: Path,
    *,
    render: bool = True,
    show: Callable[[Image], bool] | None = None,
    most_frames: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Follows targets to the video's end and writes what was found, also when reading fails on the way.

    Args:
        tracker: of any network.
        video: its first frame is where the boxes are.
        boxes: x, y, w, h in pixels, one a target.
        out: folder for the files; made if it is not there.
        render: write the video with boxes.
        show: called with every drawn frame; following ends when it returns False.
        most_frames: ends after so many (a camera has no end).
        progress: called after every frame.

    Returns:
        One row a target and frame: `frame` and `target` count from 1; `score` is None without a score head;
        `lost` says that the score has been low for some frames; `error` why a frame was skipped, in which the
        box is the one before.

    Raises:
        UserError: for a box that can't be followed, a frame that can't be read, or a folder that can't be
            written.
    """
    make_folder(out)
    history: list[list[Tracked]] = [[] for _ in boxes]
    errors: dict[int, str] = {}
    renderer = _Renderer(out / f"{video.name}.mp4", video.rate) if render else None
    try:
        for number, frame in enumerate(video.frames, 1):
            tracks = _step(tracker, frame, boxes, history)
            if frame.error:
                errors[number] = frame.error
            for target, tracked in zip(history, tracks, strict=True):
                target.append(tracked)
            if frame.image is not None and (renderer or show):
                drawn = draw(frame.image, tracks)
                if renderer:
                    renderer.add(drawn)
                if show and not show(drawn):
                    break
            progress()
            if number == most_frames:
                break
        if not history[0]:
            raise UserError(f"{video.name} holds no readable frame")
    finally:
        if renderer:
            renderer.close()
        rows = _rows(history, errors)
        if rows:
            _write(out, video.name, rows, history)
    return rows


def _step(
    tracker: Tracker, frame: Frame, boxes: Sequence[Box], history: Sequence[Sequence[Tracked]]
) -> list[Tracked]:
    if frame.image is None:
        return [replace(target[-1], updated=False) for target in history]
    if not history[0]:
        tracker.start(frame.image, boxes)
        return [Tracked(box, 1.0 if tracker.network.score_branch is not None else None) for box in boxes]
    return tracker.track(frame.image)


def _rows(history: Sequence[Sequence[Tracked]], errors: dict[int, str]) -> list[Row]:
    rows = []
    for number, tracks in enumerate(zip(*history, strict=True), 1):
        for target, tracked in enumerate(tracks, 1):
            values = asdict(tracked)
            box = dict(zip("xywh", values.pop("box"), strict=True))
            rows.append({"frame": number, "target": target, **box, **values, "error": errors.get(number)})
    return rows


def _write(out: Path, name: str, rows: list[Row], history: Sequence[Sequence[Tracked]]) -> None:
    write_json(out / f"{name}.json", rows)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(out / f"{name}.csv", table.getvalue().encode())
    if any(tracked.score is not None for target in history for tracked in target):
        plot_scores(out / f"{name}_scores.png", history)


class _Renderer:
    """An MP4 file of frames, opened with the first."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, image: Image) -> None:
        """Appends an RGB frame."""
        if self._writer is None:
            size = (image.shape[1], image.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, size)
            if not self._writer.isOpened():
                raise UserError(
                    f"can't write {self.path}", "is the folder writable? --no-video leaves it out"
                )
        self._writer.write(image[..., ::-1])

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.release()
