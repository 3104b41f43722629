"""The sample data set: places cut out of real photographs under made clouds, in the layout of Sen2_MTC_New.

    DIR/train.txt val.txt test.txt
    DIR/Sen2_MTC/T00/cloud/T00_003_0.tif … _2.tif      uint16, 40x40, four bands
    DIR/Sen2_MTC/T00/cloudless/T00_003.tif

A photograph or texture is a tile, and no tile is in two splits. Its colours become reflectances whose bands
have like mean and contrast everywhere, as those of one region's land have; near infrared is made of them.
Each date has its own cloud field (noise of several scales) and its shadow on the land, its own haze and its
own light.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from opsin.core.data.pictures import photographs, textures
from opsin.core.files import write_atomically
from opsin.restoration.cloud_removal.datasets.places import DATES

SIZE = 40
PER_TILE = 6
SPLITS = {"val": ("chelsea",), "test": ("coffee", "gravel")}  # all others train
LAND_MEAN = np.array([900.0, 1000.0, 800.0, 1300.0])  # reflectance of each band; 10000 is 1
LAND_CONTRAST = 400.0
CLOUD = 3000.0
SHADE = 0.5  # of the light, under a thick cloud's shadow
SHADOW_SHIFT = (3, 8)  # pixels to the right and below: the sun stands in the north-west
COVER = (0.3, 0.6)  # share of a date that clouds cover
OCTAVES = (4, 8, 16, 32)
NEAR_INFRARED = np.array([-0.6, 1.4, 0.4])  # of red, green and blue: plants are bright, water is dark


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes 48 places for training, 6 for validation and 12 for testing.

    Args:
        directory: where to; made if it is not there.
        seed: decides where pictures are cut out, and their clouds.

    Raises:
        UserError: if the pictures' packages are not installed, or `directory` cannot be written.
    """
    tiles: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, (name, picture) in enumerate({**photographs(), **textures()}.items()):
        tile = f"T{number:02d}"
        split = next((s for s, names in SPLITS.items() if name in names), "train")
        tiles[split].append(tile)
        rng = np.random.default_rng([seed, *name.encode()])
        for index in range(PER_TILE):
            land = _land(picture, rng)
            folder, place = directory / "Sen2_MTC" / tile, f"{tile}_{index:03d}"
            _write(folder / "cloudless" / f"{place}.tif", land)
            for date in range(DATES):
                _write(folder / "cloud" / f"{place}_{date}.tif", _clouded(land, rng))
    for split, names in tiles.items():
        write_atomically(directory / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())


def _land(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Reflectances (SIZE, SIZE, 4) of a random part of a picture, at half its resolution."""
    side = 2 * SIZE
    y, x = rng.integers((picture.shape[0] - side + 1, picture.shape[1] - side + 1))
    part = picture[y : y + side, x : x + side]
    rgb = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float64)
    bands = np.dstack((rgb, rgb @ NEAR_INFRARED))
    level = (bands - bands.mean((0, 1))) / np.maximum(bands.std((0, 1)), 1.0)
    return (LAND_MEAN + LAND_CONTRAST * level).clip(50, 4000)


def _clouded(land: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The land on a date: in that date's light and its clouds' shadows, under haze and clouds."""
    shift = int(rng.integers(*SHADOW_SHIFT))
    sky = _opacity(rng, SIZE + shift)
    opacity, shadow = sky[shift:, shift:], sky[:SIZE, :SIZE]
    haze, light = rng.uniform(0, 150), rng.uniform(0.9, 1.1)
    lit = light * (1 - SHADE * shadow) * land + haze
    return (1 - opacity) * lit + opacity * CLOUD * rng.uniform(0.8, 1.2)


def _opacity(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """How thick clouds are, (size, size, 1) from 0 to 1."""
    field = np.sum([_noise(rng, cells, size) / cells for cells in OCTAVES], axis=0)
    threshold = np.quantile(field, 1 - rng.uniform(*COVER))
    return ((field - threshold) / (0.5 * field.std())).clip(0, 1)[..., None]


def _noise(rng: np.random.Generator, cells: int, size: int) -> NDArray[np.float64]:
    """Smooth noise (size, size) with features of about size / cells pixels."""
    coarse = rng.standard_normal((cells, cells))
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, reflectance: NDArray[np.float64]) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, reflectance.round().astype(np.uint16), photometric="minisblack", planarconfig="contig"
    )
    write_atomically(path, buffer.getvalue())
