"""The sample data set: pairs of small pictures cut out of real photographs that wheels carry.

    DIR/train/HR/0001.png   DIR/train/LR_bicubic/X2/0001x2.png   …/X3/…   …/X4/…
    DIR/val/HR/0001.png     DIR/val/LR_bicubic/X2/0001x2.png     …/X3/…   …/X4/…

No photograph is in both `train` and `val`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.data.pictures import photographs
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics.psnr_ssim import luma

SIZE = 96  # side of HR pictures; a multiple of all scales
SCALES = (2, 3, 4)
VAL_PHOTOGRAPHS = ("chelsea", "coffee")
PER_PHOTOGRAPH = 20
LEAST_CONTRAST = 20.0  # standard deviation of Y: a patch of plain sky teaches and tests nothing


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes 120 training and 40 validation pictures of 96x96 pixels, and their LR for ×2, ×3 and ×4.

    Args:
        directory: where to; made if it is not there.
        seed: decides where the pictures are cut out.

    Raises:
        UserError: if the photographs' packages are not installed, or `directory` cannot be written.
    """
    patches: dict[str, list[NDArray[np.uint8]]] = {"train": [], "val": []}
    for name, photograph in photographs().items():
        rng = np.random.default_rng([seed, *name.encode()])
        patches["val" if name in VAL_PHOTOGRAPHS else "train"] += _cut(photograph, rng)
    for split, pictures in patches.items():
        for index, picture in enumerate(pictures, 1):
            write_image(directory / split / "HR" / f"{index:04d}.png", picture)
            for scale in SCALES:
                folder = directory / split / "LR_bicubic" / f"X{scale}"
                write_image(folder / f"{index:04d}x{scale}.png", bicubic(picture, 1 / scale))


def _cut(photograph: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """`PER_PHOTOGRAPH` patches with contrast; photographs without enough of it give the best of many."""
    height, width = photograph.shape[:2]
    corners = rng.integers((0, 0), (height - SIZE + 1, width - SIZE + 1), (10 * PER_PHOTOGRAPH, 2))
    patches = [np.ascontiguousarray(photograph[y : y + SIZE, x : x + SIZE]) for y, x in corners]
    patches.sort(key=lambda patch: luma(patch).std() < LEAST_CONTRAST)  # stable: plain ones go last
    return patches[:PER_PHOTOGRAPH]
