"""The detection sample data: handwritten digits as things, pasted on photographs, in COCO's layout.

`annotations/instances_{train,val}.json` have boxes and masks, `images/{train,val}/` the pictures. Digits of
the two splits were written apart (no digit image is in both). Everything follows from the seed, byte for
byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.data.pictures import digits, photographs

TRAIN_IMAGES, VAL_IMAGES = 240, 60
SIZES = ((160, 160),) * 5 + ((128, 192), (192, 144), (137, 171))
"""Height and width; an image takes one of them at random."""

DIGIT_SIZES = (28, 64)
"""Height of a digit's 8x8 cell in pixels, from … to."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

EMPTY_SHARE = 0.03
"""Share of images without any digit: backgrounds belong in a data set."""

TRIALS = (6, 20)
"""From … to below how many places are tried for a digit; one that is taken is given up."""

_FINE = 4  # masks are traced on a grid this many times finer than the pixels

Array = NDArray[Any]


def write(directory: Path, seed: int = 0) -> None:
    """Writes the data set into `directory` (about 300 images, in seconds).

    Args:
        directory: made if it is not there.
        seed: other seeds give other pictures of the same kind.

    Raises:
        UserError: when scikit-learn or scikit-image is not installed, or the folder cannot be written.
    """
    images, labels = digits()
    held_out = np.arange(len(labels)) % 5 == 4
    for split, count, chosen in (("train", TRAIN_IMAGES, ~held_out), ("val", VAL_IMAGES, held_out)):
        rng = np.random.default_rng([seed, count])
        _write_split(Path(directory), split, count, (images[chosen], labels[chosen]), rng)


def _write_split(
    directory: Path, split: str, count: int, written: tuple[Array, Array], rng: np.random.Generator
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(1, count + 1):
        canvas, things = _scene(written, rng)
        name = f"{index:06d}.jpg"
        write_image(directory / "images" / split / name, canvas)
        height, width = canvas.shape[:2]
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        for thing in things:
            annotations.append({"id": len(annotations) + 1, "image_id": index, "iscrowd": 0, **thing})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    target = directory / "annotations" / f"instances_{split}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content), encoding="utf-8")


def _scene(written: tuple[Array, Array], rng: np.random.Generator) -> tuple[Array, list[dict[str, Any]]]:
    """A piece of a photograph with a few digits that do not overlap, and their annotations."""
    canvas = _background(SIZES[rng.integers(len(SIZES))], rng)
    taken = np.zeros(canvas.shape[:2], bool)
    things = []
    for _ in range(0 if rng.random() < EMPTY_SHARE else rng.integers(*TRIALS)):
        index = rng.integers(len(written[1]))
        size = int(rng.integers(DIGIT_SIZES[0], DIGIT_SIZES[1] + 1))
        y, x = (int(rng.integers(0, side - size + 1)) for side in canvas.shape[:2])
        cell = (slice(y, y + size), slice(x, x + size))
        colour = _colour(canvas[cell], rng)
        opacity, fine = _stroke(written[0][index], size)
        if not taken[cell].any():  # else the place is left to what lies there
            taken[cell] = True
            canvas[cell] = np.rint(canvas[cell] * (1 - opacity) + colour * opacity).astype(np.uint8)
            things.append(
                {"category_id": int(written[1][index]) + 1, **_outline(fine, (y, x), canvas.shape[:2])}
            )
    return canvas, things


def _background(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """A random piece of a random photograph, up to twice as large as `size`, reduced to it."""
    pictures = list(photographs().values())
    picture = pictures[rng.integers(len(pictures))]
    zoom = rng.uniform(1.0, min(2.0, *(have / want for have, want in zip(picture.shape, size, strict=False))))
    height, width = (int(side * zoom) for side in size)
    y, x = (
        int(rng.integers(0, have - want + 1))
        for have, want in zip(picture.shape, (height, width), strict=False)
    )
    piece = picture[y : y + height, x : x + width]
    return np.asarray(cv2.resize(piece, size[::-1], interpolation=cv2.INTER_AREA))


def _colour(ground: Array, rng: np.random.Generator) -> Array:
    """A colour of any hue that is light on a dark ground and dark on a light one."""
    light = ground.mean() < 128
    value, saturation = (rng.uniform(0.85, 1.0), rng.uniform(0, 0.6)) if light else (rng.uniform(0, 0.3), 1.0)
    hsv = np.array([[[rng.uniform(0, 360), saturation, value]]], np.float32)
    colour: Array = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255
    return colour


def _stroke(digit: Array, size: int) -> tuple[Array, Array]:
    """The digit's opacity (size, size, 1) in 0 … 1, and its mask of 0 and 1 on the fine grid."""
    side = size * _FINE
    smooth = cv2.resize(digit.astype(np.float32) / 255, (side, side), interpolation=cv2.INTER_CUBIC)
    steep = np.clip((smooth - 0.3) / 0.3, 0, 1)
    opacity = cv2.resize(steep, (size, size), interpolation=cv2.INTER_AREA)
    return opacity[..., None], (smooth > 0.45).astype(np.uint8)


def _outline(fine: Array, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """COCO's `bbox`, `area` and `segmentation`: polygons, or run lengths where the digit has a hole."""
    pixels = cv2.resize(fine * 255, None, fx=1 / _FINE, fy=1 / _FINE, interpolation=cv2.INTER_AREA) >= 128
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    y, x = corner
    box = [x + columns[0], y + rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    contours, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
    if (tree[0, :, 3] >= 0).any():
        whole = np.zeros(size, np.uint8)
        whole[y : y + len(pixels), x : x + len(pixels)] = pixels
        segmentation: Any = {"size": list(size), "counts": _run_lengths(whole)}
    else:
        polygons = [(c.reshape(-1, 2) + 0.5) / _FINE + (x, y) for c in contours if len(c) >= 3]
        segmentation = [np.round(p, 2).reshape(-1).tolist() for p in polygons]
    return {"bbox": [int(v) for v in box], "area": int(pixels.sum()), "segmentation": segmentation}


def _run_lengths(mask: Array) -> list[int]:
    """COCO's uncompressed form: lengths of the runs of 0 and 1 in turn, down the columns, 0s first."""
    flat = np.concatenate([[0], mask.flatten(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    return [int(n) for n in np.diff(ends, prepend=0)]
