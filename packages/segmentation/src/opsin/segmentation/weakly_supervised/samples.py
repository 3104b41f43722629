"""A small weakly supervised data set made from real pictures: coloured digits on textures and photographs.

    CUB_200_2011/{train,test}/<class>/0000.jpg, test_list.txt, test_bounding_box.txt     one digit a picture
    VOC2012/JPEGImages/train_0000.jpg, SegmentationClass/train_0000.png,
    VOC2012/ImageSets/Segmentation/{train,val}.txt                                  one or two digits

Each class has a hue of its own. The halves share no digit and no part of a texture or photograph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from opsin.core.data.pictures import digits, photographs, textures
from opsin.segmentation.datasets.mask_pairs import IGNORE

SIZE = 96
CLASSES = {"blue_four": (4, (70, 90, 235)), "green_one": (1, (60, 200, 70)), "red_zero": (0, (225, 60, 50))}
TRAINING_SHARE = 0.6  # of each ground's width, and of the digits
SPLITS = {"train": "train", "test": "val"}

Rgb = NDArray[np.uint8]


def write_samples(directory: Path, seed: int = 0, *, train: int = 120, val: int = 36) -> None:
    """Writes the data set into `directory`; the same seed writes the same bytes.

    Args:
        directory: made if it is missing; files of the same names are replaced.
        seed: of the pictures.
        train: training pictures of each layout.
        val: pictures of each layout to measure on.
    """
    for half, (split, count) in enumerate((("train", train), ("test", val))):
        material = _material(split)
        rng = np.random.default_rng([seed, half])
        _write_cub(Path(directory) / "CUB_200_2011", split, count, material, rng)
        _write_voc(Path(directory) / "VOC2012", SPLITS[split], count, material, rng)


def _material(split: str) -> tuple[list[Rgb], list[NDArray[Any]]]:
    """Grounds, and for each class its digits (N, 10, 10) from 0 to 1."""
    training = split == "train"
    grounds = []
    for picture in (*textures().values(), *photographs().values()):
        border = int(picture.shape[1] * TRAINING_SHARE)
        grounds.append(picture[:, :border] if training else picture[:, border:])
    images, numbers = digits()
    first = int(len(images) * TRAINING_SHARE)
    chosen = slice(None, first) if training else slice(first, None)
    glyphs = [images[chosen][numbers[chosen] == digit] / np.float32(255) for digit, _ in CLASSES.values()]
    return grounds, [np.pad(glyph, ((0, 0), (1, 1), (1, 1))) for glyph in glyphs]


def _ground(grounds: list[Rgb], rng: Generator) -> NDArray[Any]:
    """A dim, nearly grey patch (SIZE, SIZE, 3) of one of the grounds."""
    picture = grounds[rng.integers(len(grounds))]
    side = int(min(rng.integers(SIZE, 2 * SIZE), *picture.shape[:2]))
    top, left = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
    patch = cv2.resize(
        picture[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )
    grey = patch.mean(-1, keepdims=True)
    dim: NDArray[Any] = (0.3 * patch + 0.7 * grey) * rng.uniform(0.5, 0.9)
    return dim


def _place(scene: NDArray[Any], label: int, glyphs: NDArray[Any], rng: Generator) -> NDArray[Any]:
    """Draws a digit of class `label` into the scene; how much of each pixel is its, (SIZE, SIZE)."""
    side = int(rng.integers(SIZE * 2 // 5, SIZE * 3 // 4))
    glyph = cv2.resize(glyphs[rng.integers(len(glyphs))], (side, side), interpolation=cv2.INTER_CUBIC)
    glyph = cv2.dilate(glyph, np.ones((side // 16 + 1,) * 2, np.uint8))
    top, left = rng.integers(0, SIZE - side + 1, 2)
    cover = np.zeros((SIZE, SIZE, 1), np.float32)
    cover[top : top + side, left : left + side, 0] = np.clip(1.6 * glyph - 0.3, 0, 1)
    colour = np.array(list(CLASSES.values())[label][1]) * rng.uniform(0.85, 1.08)
    scene[:] = scene * (1 - cover) + np.clip(colour, 0, 255) * cover
    return cover[..., 0]


def _write_cub(
    folder: Path, split: str, count: int, material: tuple[list[Rgb], list[NDArray[Any]]], rng: Generator
) -> None:
    names, boxes = [], []
    for number in range(count):
        label = number % len(CLASSES)
        scene = _ground(material[0], rng)
        inside = _place(scene, label, material[1][label], rng) >= 0.5
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        name = f"{list(CLASSES)[label]}/{number:04d}.jpg"
        _save(scene, folder / split / name)
        names.append(f"{name};{label}")
        boxes.append(f"{columns[0]} {rows[0]} {columns[-1] + 1} {rows[-1] + 1} {SIZE} {SIZE}")
    if split == "test":
        (folder / "test_list.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        (folder / "test_bounding_box.txt").write_text("\n".join(boxes) + "\n", encoding="utf-8")


def _write_voc(
    folder: Path, split: str, count: int, material: tuple[list[Rgb], list[NDArray[Any]]], rng: Generator
) -> None:
    names = []
    for number in range(count):
        scene, mask = _ground(material[0], rng), np.zeros((SIZE, SIZE), np.uint8)
        for label in rng.permutation(len(CLASSES))[: rng.integers(1, 3)]:
            cover = _place(scene, label, material[1][label], rng)
            mask[cover > 0.2] = IGNORE
            mask[cover >= 0.5] = label + 1
        names.append(f"{split}_{number:04d}")
        _save(scene, folder / "JPEGImages" / f"{names[-1]}.jpg")
        _save(mask, folder / "SegmentationClass" / f"{names[-1]}.png")
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(names) + "\n", encoding="utf-8")


def _save(pixels: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path, quality=95)
