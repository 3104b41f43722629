"""A small ImageFolder of real pictures: four materials, cut from photographs and dyed.

    train/<brick, grass, petals, stars>/000.jpg     64x64, 80 a class
    val/…                                           20 a class

Every piece is turned, and brought to the same brightness and contrast in a random tint, so that only its
texture tells what it is, not single pixels nor the mean colour. The splits share no part of a photograph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.data.pictures import photographs, textures

SIZE = 64
CUT_SIDES = (80, 101)  # pixels of the original that a piece shows on a side
TRAINING_SHARE = 0.6  # left part of every material; the rest is for validation

# Where a photograph shows the material, as (top, bottom, left, right) in pixels; a texture shows nothing
# else.
PLACES: Mapping[str, tuple[str, tuple[int, int, int, int]]] = {
    "petals": ("flower", (90, 350, 180, 440)),
    "stars": ("hubble", (0, 872, 0, 1000)),
}


def write(directory: Path, seed: int = 0, *, train: int = 80, val: int = 20) -> None:
    """Writes the data set into `directory`; the same seed writes the same pictures.

    Args:
        directory: made if it is missing; files of the same names are replaced.
        seed: of the pictures.
        train: pictures of each class for training.
        val: pictures of each class for validation.

    Raises:
        UserError: if scikit-learn or scikit-image is not installed, or the folder cannot be written.
    """
    rng = np.random.default_rng(seed)
    for name, material in sorted(_materials().items()):
        cut = int(material.shape[1] * TRAINING_SHARE)
        for split, part, count in (("train", material[:, :cut], train), ("val", material[:, cut:], val)):
            for index in range(count):
                write_image(Path(directory) / split / name / f"{index:03d}.jpg", _piece(part, rng))


def _materials() -> dict[str, NDArray[np.uint8]]:
    """Class name to a picture (H, W, 3) that shows that material all over."""
    found = {name: textures()[name] for name in ("brick", "grass")}
    for name, (photograph, (top, bottom, left, right)) in PLACES.items():
        found[name] = photographs()[photograph][top:bottom, left:right]
    return found


def _piece(material: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """A random square of the material (SIZE, SIZE, 3), turned by quarters, mirrored and dyed."""
    side = int(rng.integers(*CUT_SIDES))
    top = rng.integers(material.shape[0] - side + 1)
    left = rng.integers(material.shape[1] - side + 1)
    square = cv2.resize(
        material[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )
    turned = np.rot90(square, int(rng.integers(4)))
    return _dye(turned[:, ::-1] if rng.random() < 0.5 else turned, rng)


def _dye(picture: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Grey of zero mean and unit deviation, in a random tint."""
    grey = picture.mean(axis=2, keepdims=True)
    grey = (grey - grey.mean()) / max(float(grey.std()), 1.0)
    dyed = rng.uniform(90, 160, 3) + grey * rng.uniform(30, 55, 3)
    return dyed.clip(0, 255).round().astype(np.uint8)
