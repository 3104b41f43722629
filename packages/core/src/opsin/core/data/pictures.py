"""Real pictures that wheels carry, for sample data sets: photographs, textures and handwritten digits.

They come with scikit-learn and scikit-image (the extra `opsin-core[samples]`); nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import read_image
from opsin.core.errors import UserError

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "hubble": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
"""Name to file in scikit-image's wheel; scikit-learn adds `china` and `flower`."""

TEXTURES = ("brick", "grass", "gravel")


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Photographs by name, RGB uint8 (H, W, 3), sides from 300 to 1000 pixels, in the order of their names.

    The arrays are shared and read-only.

    Raises:
        UserError: when scikit-learn or scikit-image is not installed.
    """
    found = {name: _picture(_skimage_folder() / file) for name, file in PHOTOGRAPHS.items()}
    found |= {name: _picture(_sklearn_folder() / f"{name}.jpg") for name in ("china", "flower")}
    return dict(sorted(found.items()))


def textures() -> dict[str, NDArray[np.uint8]]:
    """Textures `brick`, `grass` and `gravel`, grey, as RGB uint8 (512, 512, 3); shared and read-only.

    Raises:
        UserError: when scikit-image is not installed.
    """
    return {name: _picture(_skimage_folder() / f"{name}.png") for name in TEXTURES}


@cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Handwritten digits, 8-bit grey (1797, 8, 8), white strokes on black, and which digit each is (1797,).

    Raises:
        UserError: when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise _not_installed("scikit-learn") from None
    data: Any = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    labels = data.target.astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


@cache
def _picture(path: Path) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = read_image(path)
    picture.flags.writeable = False
    return picture


def _skimage_folder() -> Path:
    try:
        import skimage
    except ImportError:
        raise _not_installed("scikit-image") from None
    return Path(skimage.__file__).parent / "data"


def _sklearn_folder() -> Path:
    try:
        import sklearn
    except ImportError:
        raise _not_installed("scikit-learn") from None
    return Path(sklearn.__file__).parent / "datasets" / "images"


def _not_installed(package: str) -> UserError:
    return UserError(
        f"sample pictures come with {package}, which is not installed", "pip install 'opsin-core[samples]'"
    )
