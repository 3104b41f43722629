"""The sample data set: short videos composed of real textures, photographs and handwritten digits.

    DIR/train/list.txt          sequence names
    DIR/train/GOT-10k_Train_000001/00000001.jpg   groundtruth.txt   absence.label   cover.label
    DIR/val/…   DIR/test/…      groundtruth.txt of test has the first line only
    DIR/val/attributes.json     attribute to sequence names

A coloured plate with a handwritten digit moves over a background that the camera passes. All videos have
motion and change of scale; a quarter each has besides an occluder that hides the target for a while, motion
blur, or a distractor: the same digit by another hand, in another colour, that crosses the target's way. No
drawn digit and no background is in both `train` and the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.data.pictures import digits, photographs, textures
from opsin.core.files import write_atomically
from opsin.tracking.crops import Box

Image = NDArray[np.uint8]
Generator = np.random.Generator

HEIGHT, WIDTH = 144, 192
PLATE = 32  # side of a plate as drawn, before its scale
OCCLUDER = 64  # width of an occluder, pixels
SPLITS = {"train": (24, 16), "val": (8, 40), "test": (2, 12)}
"""Videos of each split, and frames of each."""

ATTRIBUTES = ("plain", "occlusion", "blur", "distractor")
BACKGROUNDS = {
    "train": ("brick", "grass", "astronaut", "china", "coffee", "motorcycle"),
    "val": ("gravel", "chelsea", "flower", "rocket"),
}
COVER_STEPS = 8  # GOT-10k's cover label: 8 is all of the target, 0 none


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes 24 training, 8 validation and 2 test videos of 192x144 pixels.

    Args:
        directory: where to; made if it is not there.
        seed: decides everything that is drawn.

    Raises:
        UserError: if the pictures' packages are not installed, or `directory` cannot be written.
    """
    for split, (count, length) in SPLITS.items():
        attributes: dict[str, list[str]] = {name: [] for name in ATTRIBUTES}
        for number in range(count):
            attribute = ATTRIBUTES[number % len(ATTRIBUTES)]
            name = f"GOT-10k_{split.capitalize()}_{number + 1:06d}"
            attributes[attribute].append(name)
            rng = np.random.default_rng([seed, *split.encode(), number])
            _write_video(directory / split / name, _compose(rng, split, attribute, length), split == "test")
        names = sorted(name for group in attributes.values() for name in group)
        write_atomically(directory / split / "list.txt", ("\n".join(names) + "\n").encode())
        content = json.dumps({k: v for k, v in attributes.items() if v}, indent=1) + "\n"
        write_atomically(directory / split / "attributes.json", content.encode())


def _write_video(folder: Path, frames: Iterator[tuple[Image, Box, float]], first_only: bool) -> None:
    boxes, covers = [], []
    for number, (image, box, shown) in enumerate(frames, 1):
        write_image(folder / f"{number:08d}.jpg", image)
        boxes.append(",".join(f"{value:.4f}" for value in box))
        covers.append(int(np.ceil(shown * COVER_STEPS)))
    rows = boxes[:1] if first_only else boxes
    write_atomically(folder / "groundtruth.txt", ("\n".join(rows) + "\n").encode())
    if not first_only:
        write_atomically(folder / "cover.label", ("\n".join(map(str, covers)) + "\n").encode())
        absent = "\n".join(str(int(cover == 0)) for cover in covers)
        write_atomically(folder / "absence.label", f"{absent}\n".encode())


@dataclass(frozen=True)
class _Path:
    """Smooth motion: place = middle + reach * sin(speed * t + phase) along each axis, scale likewise."""

    middle: NDArray[np.float64]
    reach: NDArray[np.float64]
    speed: NDArray[np.float64]
    phase: NDArray[np.float64]

    @classmethod
    def random(cls, rng: Generator) -> _Path:
        """x, y and log-scale of a plate that stays in the picture."""
        return cls(
            np.array([WIDTH / 2, HEIGHT / 2, 0.0]),
            np.array([rng.uniform(30, 65), rng.uniform(20, 42), rng.uniform(0.1, 0.3)]),
            rng.uniform(0.04, 0.14, 3),
            rng.uniform(0, 2 * np.pi, 3),
        )

    def at(self, t: int) -> tuple[float, float, float]:
        """Centre x, y in pixels and scale."""
        x, y, log_scale = self.middle + self.reach * np.sin(self.speed * t + self.phase)
        return float(x), float(y), float(np.exp(log_scale))


def _compose(rng: Generator, split: str, attribute: str, length: int) -> Iterator[tuple[Image, Box, float]]:
    """Frames, the target's box, and how much of it can be seen (0 to 1)."""
    held_out = split != "train"
    background = _background(rng, "val" if held_out else "train")
    digit = int(rng.integers(10))
    hue = int(rng.integers(180))
    target = _plate(rng, digit, hue, held_out)
    other = _plate(rng, digit, (hue + int(rng.integers(45, 135))) % 180, held_out)
    path, camera = _Path.random(rng), rng.uniform(-0.8, 0.8, 2)
    crossing = _Path(path.middle, path.reach * [1, -1, 1], path.speed, path.phase)
    occluder = _occluder(rng)
    hidden_from = length // 3 + int(rng.integers(length // 6))
    for t in range(length):
        image = _view(background, camera * t)
        if attribute == "distractor":
            _paste(image, other, *crossing.at(t))
        x, y, scale = path.at(t)
        box = _paste(image, target, x, y, scale)
        shown = 1.0
        if attribute == "occlusion":
            shown = _occlude(image, occluder, box, (t - hidden_from) / 8)
        if attribute == "blur":
            ahead = path.at(t + 1)
            image = _blurred(image, (ahead[0] - x, ahead[1] - y))
        yield image, box, shown


def _background(rng: Generator, split: str) -> Image:
    names = BACKGROUNDS[split]
    picture = {**textures(), **photographs()}[names[int(rng.integers(len(names)))]]
    tint = rng.uniform(0.6, 1.0, 3)
    return (picture * tint).astype(np.uint8)


def _view(background: Image, offset: NDArray[np.float64]) -> Image:
    """What the camera sees, `offset` pixels away from the picture's middle."""
    height, width = background.shape[:2]
    x, y = (WIDTH - width) / 2 - offset[0], (HEIGHT - height) / 2 - offset[1]
    move = np.array([[1, 0, x], [0, 1, y]])
    return cv2.warpAffine(background, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def _plate(rng: Generator, digit: int, hue: int, held_out: bool) -> Image:
    """A coloured square with a handwritten digit, RGB (PLATE, PLATE, 3); writers are split in two."""
    images, labels = digits()
    rows = np.flatnonzero(labels == digit)
    writers = rows[len(rows) // 2 :] if held_out else rows[: len(rows) // 2]
    strokes = cv2.resize(images[rng.choice(writers)], (PLATE, PLATE), interpolation=cv2.INTER_CUBIC)
    colours = np.array([[[hue, 200, 220], [(hue + 90) % 180, 220, 60]]], np.uint8)
    ground, ink = cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)[0].astype(np.float64)
    share = strokes[..., None] / 255
    return np.clip(ground * (1 - share) + ink * share, 0, 255).astype(np.uint8)


def _occluder(rng: Generator) -> Image:
    """A strip of a photograph, as high as the picture."""
    picture = photographs()["hubble"]
    x, y = int(rng.integers(picture.shape[1] - OCCLUDER)), int(rng.integers(picture.shape[0] - HEIGHT))
    return picture[y : y + HEIGHT, x : x + OCCLUDER]


def _paste(image: Image, plate: Image, x: float, y: float, scale: float) -> Box:
    """Draws a plate around x, y; returns its box."""
    side = PLATE * scale
    left, top = x - side / 2, y - side / 2
    move = np.array([[scale, 0, left + (scale - 1) / 2], [0, scale, top + (scale - 1) / 2]])
    drawn = cv2.warpAffine(plate, move, (WIDTH, HEIGHT))
    cover = cv2.warpAffine(np.ones(plate.shape[:2], np.float32), move, (WIDTH, HEIGHT))[..., None]
    image[:] = np.where(cover > 0.5, drawn, image)
    return left, top, side, side


def _occlude(image: Image, occluder: Image, box: Box, time: float) -> float:
    """Moves the strip across the target while `time` runs from 0 to 1; returns what is left to be seen."""
    if not 0 <= time <= 1:
        return 1.0
    x, _, w, _ = box
    left = x + (2 * time - 1) * (w + OCCLUDER) / 2 + (w - OCCLUDER) / 2
    start, stop = max(0, round(left)), min(WIDTH, round(left) + OCCLUDER)
    if start >= stop:
        return 1.0
    image[:, start:stop] = occluder[:, start - round(left) : stop - round(left)]
    return float(1 - np.clip(min(x + w, stop) - max(x, start), 0, w) / w)


def _blurred(image: Image, motion: tuple[float, float]) -> Image:
    """Averages the picture along twice its motion, as a long exposure does."""
    steps = np.linspace(-1, 1, 9)
    views = [
        cv2.warpAffine(
            image,
            np.array([[1, 0, s * motion[0]], [0, 1, s * motion[1]]]),
            (WIDTH, HEIGHT),
            borderMode=cv2.BORDER_REPLICATE,
        )
        for s in steps
    ]
    return np.mean(views, axis=0).astype(np.uint8)
