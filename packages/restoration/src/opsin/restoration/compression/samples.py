"""The sample data set: real photographs that wheels carry, in COCO's layout, with masks of their segments.

    DIR/train2017/….png   DIR/annotations/panoptic_train2017/….png
    DIR/val2017/….png     DIR/annotations/panoptic_val2017/….png

No photograph is in both `train2017` and `val2017`. The masks are segmentations by colour (Felzenszwalb and
Huttenlocher, 2004), each segment in a colour of its own, without classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.data.pictures import photographs

SIZE = 192  # side of the pictures; MS-SSIM needs 161
VAL_PHOTOGRAPHS = ("chelsea", "coffee")
PER_PHOTOGRAPH = {"train": 8, "val": 3}
SEGMENTS = dict(scale=300.0, sigma=1.0, min_size=300)


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes 48 training and 6 validation pictures of 192x192 pixels with their masks.

    Args:
        directory: where to; made if it is not there.
        seed: decides where the pictures are cut out.

    Raises:
        UserError: if the photographs' packages are not installed, or `directory` cannot be written.
    """
    for name, photograph in photographs().items():
        split = "val" if name in VAL_PHOTOGRAPHS else "train"
        rng = np.random.default_rng([seed, *name.encode()])
        height, width = photograph.shape[:2]
        corners = rng.integers((0, 0), (height - SIZE + 1, width - SIZE + 1), (PER_PHOTOGRAPH[split], 2))
        for index, (y, x) in enumerate(corners, 1):
            picture = np.ascontiguousarray(photograph[y : y + SIZE, x : x + SIZE])
            stem = f"{name}_{index:02d}.png"
            write_image(directory / f"{split}2017" / stem, picture)
            write_image(directory / "annotations" / f"panoptic_{split}2017" / stem, region_mask(picture))


def region_mask(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask as COCO's panoptic ones: segment number = R + 256 G + 256² B, RGB uint8 (H, W, 3)."""
    from skimage.segmentation import felzenszwalb  # a second to import

    segments = np.asarray(felzenszwalb(picture, **SEGMENTS))
    return np.stack([segments >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
