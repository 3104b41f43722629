"""Where frames come from: a video file, a folder of pictures, or a camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import list_images, read_image
from opsin.core.engine.predictor import open_video
from opsin.core.errors import UserError

Image = NDArray[np.uint8]
OnError = Literal["raise", "skip"]
CAMERA = "camera"
FOLDER_RATE = 25.0  # frames a second of a folder of pictures


@dataclass(frozen=True)
class Frame:
    """One frame; `image` is None, and `error` says why, where it can't be read and shall be skipped."""

    image: Image | None
    error: str = ""


@dataclass(frozen=True)
class Video:
    """Frames in order.

    Attributes:
        name: for files made of it.
        rate: frames a second.
        count: how many there are, as far as that is known.
        frames: RGB uint8 (H, W, 3), all of one size.
    """

    name: str
    rate: float
    count: int | None
    frames: Iterator[Frame]


def open_frames(source: str, *, on_error: OnError = "raise") -> Video:
    """A video by its path; `camera` or `camera:1` is a camera by its number.

    Args:
        source: what `opsin track` is given.
        on_error: whether a frame that can't be read, or has another size, stops or is skipped.

    Raises:
        UserError: if there is nothing to read, and while reading, for such a frame (names it).
    """
    kind, _, number = source.partition(":")
    if kind == CAMERA and (not number or number.isdigit()):
        return _camera(int(number or 0))
    path = Path(source)
    if path.is_dir():
        files = list_images(path)
        return Video(path.name, FOLDER_RATE, len(files), one_size(_pictures(files), on_error))
    if not path.exists():
        raise UserError(f"no file or folder at {path}", "give a video, a folder of frames, or camera")
    rate, images = open_video(path)
    count = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    named = ((f"frame {i} of {path}", image) for i, image in enumerate(images, 1))
    return Video(path.stem, rate, max(count, 0) or None, one_size(named, on_error))


def _camera(number: int) -> Video:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UserError(f"camera {number} can't be opened", "is it there, and not used by another program?")

    def frames() -> Iterator[Frame]:
        while True:
            read, bgr = capture.read()
            if not read:
                capture.release()
                return
            yield Frame(np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8))

    return Video(f"camera{number}", capture.get(cv2.CAP_PROP_FPS) or FOLDER_RATE, None, frames())


def _pictures(files: list[Path]) -> Iterator[tuple[str, Image | UserError]]:
    for file in files:
        try:
            yield str(file), read_image(file)
        except UserError as error:
            yield str(file), error


def one_size(named: Iterator[tuple[str, Image | UserError]], on_error: OnError) -> Iterator[Frame]:
    """Frames of the first one's size; others, and errors, are raised or skipped.

    Raises:
        UserError: naming the frame; always if it is the first.
    """
    size: tuple[int, ...] | None = None
    for name, image in named:
        if isinstance(image, UserError):
            error: UserError | None = image
        elif size is not None and image.shape[:2] != size:
            error = UserError(
                f"{name} is {image.shape[1]}x{image.shape[0]}, and the frames before are {size[1]}x{size[0]}",
                "frames of a video have one size; --skip-bad leaves such frames out",
            )
        else:
            error, size = None, image.shape[:2]
        if error is None and not isinstance(image, UserError):
            yield Frame(image)
        elif on_error == "raise" or size is None:
            raise error or UserError(f"{name} can't be read")
        else:
            yield Frame(None, str(error))
