"""A small data set in MedMNIST's format: in which plane a slice of the MNI152 head is cut.

    head_112.npz    {train,val,test}_{images,labels}: uint8 (N, 112, 112), classes axial, coronal, sagittal
    pictures/       six of the test slices, as PNG, for prediction

The head is nilearn's MNI152 template (T1). A slice is turned, shifted, scaled and given another
contrast, so that it must be known by its anatomy. The splits take different slabs of the head.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.files import write_atomically

PLANES = ("sagittal", "coronal", "axial")  # the axes of a volume in RAS order
CLASSES = ("axial", "coronal", "sagittal")
SIDE = 112  # pixels
TURN = 40  # degrees, the most that a slice is turned either way
SHIFT = 12  # pixels, the most that it is shifted
SLAB = 6  # millimetres; slabs take turns: three for training, one for validation, one for test
SPLIT_OF_SLAB = ("train", "val", "train", "test", "train")


def write_samples(directory: Path, seed: int = 0, *, train: int = 80, val: int = 20, test: int = 30) -> None:
    """Writes the data set into `directory`; the same seed writes the same pictures.

    Args:
        directory: made if it is missing.
        seed: of the pictures.
        train: slices of each plane for training.
        val: for validation.
        test: for test.
    """
    rng = np.random.default_rng(seed)
    head = _head()
    arrays = {}
    for split, count in (("train", train), ("val", val), ("test", test)):
        planes = [plane for plane in PLANES for _ in range(count)]
        drawn = [(_slice(head, plane, split, rng), CLASSES.index(plane)) for plane in planes]
        order = rng.permutation(len(drawn))
        arrays[f"{split}_images"] = np.stack([drawn[i][0] for i in order])
        arrays[f"{split}_labels"] = np.array([[drawn[i][1]] for i in order], np.uint8)
    content = BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own option
    write_atomically(directory / f"head_{SIDE}.npz", content.getvalue())
    for index in range(6):
        grey = arrays["test_images"][index]
        name = CLASSES[int(arrays["test_labels"][index, 0])]
        write_image(directory / "pictures" / f"{name}{index}.png", np.repeat(grey[..., None], 3, -1))


def _head() -> NDArray[np.float32]:
    """The template at 2 mm, 0 to 1, in RAS order."""
    from nilearn.datasets import load_mni152_template

    head = np.asarray(load_mni152_template(resolution=2).get_fdata(), np.float32)
    return head / head.max()


def _slice(head: NDArray[np.float32], plane: str, split: str, rng: Generator) -> NDArray[np.uint8]:
    axis = PLANES.index(plane)
    length = head.shape[axis]
    places = [
        i
        for i in range(int(0.25 * length), int(0.75 * length))
        if SPLIT_OF_SLAB[2 * i // SLAB % len(SPLIT_OF_SLAB)] == split
    ]
    cut = np.ascontiguousarray(head.take(int(rng.choice(places)), axis))
    height, width = cut.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-TURN, TURN), rng.uniform(0.8, 1.15))
    turn[:, 2] += SIDE / 2 - np.array([width, height]) / 2 + rng.uniform(-SHIFT, SHIFT, 2)
    turned = cv2.warpAffine(cut, turn, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    contrast = np.clip(turned, 0, 1) ** rng.uniform(0.6, 1.6) * rng.uniform(0.6, 1.0)
    noisy = contrast + rng.normal(0, 0.02, contrast.shape)
    return np.asarray(np.clip(255 * noisy, 0, 255), np.uint8)
