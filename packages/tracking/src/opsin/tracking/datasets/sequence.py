"""One video with the boxes of one target, and the text files that hold boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class VideoSequence:
    """One target in one video; a still picture is a video of one frame.

    Attributes:
        name: of the sequence in its benchmark.
        frames: the picture files, in order.
        boxes: x, y, w, h in pixels (N, 4) of the first N frames; NaN where there is no annotation. Test sets
            whose truth is on a server have the first row only.
        visible: whether the target can be seen, (N,).
    """

    name: str
    frames: tuple[str, ...]
    boxes: Boxes
    visible: NDArray[np.bool_]

    @property
    def has_truth(self) -> bool:
        """Whether every frame has a row of truth."""
        return len(self.boxes) == len(self.frames)


def sequence(
    name: str, frames: list[Path], boxes: Boxes, hidden: NDArray[np.bool_] | None = None
) -> VideoSequence:
    """A sequence; the target is visible where its box has an area and `hidden` does not say otherwise.

    Raises:
        UserError: if there are more boxes than frames, or no box at all.
    """
    if not len(boxes) or len(boxes) > len(frames):
        raise UserError(f"sequence {name} has {len(boxes)} boxes and {len(frames)} frames")
    visible: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))
    if hidden is not None:
        rows = min(len(hidden), len(visible))
        visible[:rows] &= ~hidden[:rows]
    return VideoSequence(name, tuple(map(str, frames)), boxes, visible)


def read_boxes(path: Path) -> Boxes:
    """A file of one x,y,w,h a line, by comma, tab or space, `nan` where there is none: (N, 4).

    Raises:
        UserError: naming the file and the line that is no box.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = [float(value) for value in re.split(r"[,;\s]+", line)]
        except ValueError:
            row = []
        if len(row) != 4:
            raise UserError(f"{path}, line {number}: {line[:60]!r} is not a box x,y,w,h")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 4)


def read_flags(path: Path) -> NDArray[np.int64]:
    """A file of whole numbers by comma or line (occlusion, cover, absence labels): (N,).

    Raises:
        UserError: naming the file, if something in it is no number.
    """
    text = " ".join(read_lines(path))
    try:
        return np.array([int(float(value)) for value in re.split(r"[,\s]+", text) if value], np.int64)
    except ValueError as error:
        raise UserError(f"{path} does not hold numbers ({error})") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them.

    Raises:
        UserError: if it can't be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"no file {path}", "check the layout of the data folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def numbered_frames(folder: Path, count: int, *, first: int = 1, digits: int = 8) -> list[Path]:
    """`folder/00000001.jpg` and so on; only the two ends are looked for, as folders hold thousands.

    Raises:
        UserError: if an end is missing.
    """
    frames = [folder / f"{number:0{digits}d}.jpg" for number in range(first, first + count)]
    for end in (frames[0], frames[-1]) if frames else ():
        if not end.is_file():
            raise UserError(f"{folder} lacks {end.name}", f"{count} frames are annotated")
    return frames
