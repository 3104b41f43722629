"""The sample data set: small photographs, and the point spread functions of a made lens.

    DIR/psf.npy                     (16, 24, 24, 3): 4x4 positions of 24 pixels
    DIR/train/0001.png  val/ test/  96x96 pixels, the sensor's size; no photograph is in two folders

The lens is not a real one. Its blur grows away from the axis and is stretched towards it (coma), its three
colours have different widths, and every position has a faint wide halo, as metalenses have.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.data.pictures import photographs
from opsin.core.files import write_atomically

POSITIONS = 4  # in a row and in a column
PSF_SIZE = 24
SENSOR = POSITIONS * PSF_SIZE
PER_PHOTOGRAPH = 6
SPLITS = {"val": ("chelsea",), "test": ("coffee",)}  # all others train
COLOUR_WIDTHS = (1.3, 1.0, 1.15)  # red, green, blue
HALO = 0.25  # share of the light that goes far


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes 36 pictures for training, 6 for validation, 6 for testing, and the lens.

    Args:
        directory: where to; made if it is not there.
        seed: decides where the pictures are cut out.

    Raises:
        UserError: if the photographs' packages are not installed, or `directory` cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, point_spread_functions())
    write_atomically(directory / "psf.npy", buffer.getvalue())
    counts = {"train": 0, "val": 0, "test": 0}
    for name, photograph in photographs().items():
        split = next((s for s, names in SPLITS.items() if name in names), "train")
        rng = np.random.default_rng([seed, *name.encode()])
        for _ in range(PER_PHOTOGRAPH):
            counts[split] += 1
            write_image(directory / split / f"{counts[split]:04d}.png", _cut(photograph, rng))


def point_spread_functions() -> NDArray[np.float32]:
    """The PSFs of all positions (16, 24, 24, 3), row by row; each sums to 1 in each channel."""
    places = np.linspace(-1, 1, POSITIONS)
    psfs = [_spread(x, y) for y in places for x in places]
    return np.stack(psfs).astype(np.float32)


def _spread(x: float, y: float) -> NDArray[np.float64]:
    """The PSF (PSF_SIZE, PSF_SIZE, 3) of a place in the field, both coordinates from -1 to 1."""
    axis = np.arange(PSF_SIZE, dtype=np.float64) - PSF_SIZE // 2
    columns, rows = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    outward = np.array([x, y]) / max(radius, 1e-9)
    along = columns * outward[0] + rows * outward[1]
    across = rows * outward[0] - columns * outward[1]
    channels = []
    for width in COLOUR_WIDTHS:
        core = _gaussian(along, width * (0.9 + 0.9 * radius)) * _gaussian(
            across, width * (0.9 + 0.4 * radius)
        )
        tail = _gaussian(along + 2 * radius, width * 2) * _gaussian(across, width)
        halo = _gaussian(columns, 5 * width) * _gaussian(rows, 5 * width)
        near = core / core.sum() + 0.5 * radius * tail / tail.sum()
        channels.append((1 - HALO) * near / near.sum() + HALO * halo / halo.sum())
    return np.stack(channels, axis=-1)


def _gaussian(distance: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * (distance / sigma) ** 2)


def _cut(photograph: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random part of a photograph, at half its resolution."""
    side = 2 * SENSOR
    y, x = rng.integers((photograph.shape[0] - side + 1, photograph.shape[1] - side + 1))
    part = photograph[y : y + side, x : x + side]
    return np.asarray(cv2.resize(part, (SENSOR, SENSOR), interpolation=cv2.INTER_AREA), np.uint8)
