"""Pictures and volumes with their lists: a retina and a head, cut from what wheels carry.

    pictures/*.png      volumes/*.nii.gz
    train.txt  val.txt          a line each: `pictures/000.png 0`

Pictures are pieces of scikit-image's retina (class 0) and of its microaneurysms (class 1); volumes are boxes
of the MNI152 head, from its lower (class 0) or upper half (class 1). The splits share no piece.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.errors import UserError
from opsin.core.files import write_atomically

SIDE = 64  # pixels of a picture, voxels of a volume's longer sides


def write_samples(
    directory: Path, seed: int = 0, *, pictures: int = 48, volumes: int = 12, held_out: int = 8
) -> None:
    """Writes the data set into `directory`; the same seed writes the same files.

    Args:
        directory: made if it is missing.
        seed: of the pieces.
        pictures: for training.
        volumes: for training.
        held_out: pictures for validation, and half as many volumes.
    """
    rng = np.random.default_rng(seed)
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split, count in (("train", pictures), ("val", held_out)):
        for index in range(count):
            name = f"pictures/{split}{index:03}.png"
            write_image(directory / name, _piece(rng, index % 2, split))
            lines[split].append(f"{name} {index % 2}")
    head = _head()
    for split, count in (("train", volumes), ("val", held_out // 2)):
        for index in range(count):
            name = f"volumes/{split}{index:03}.nii.gz"
            box = nib.Nifti1Image(_box(head, rng, index % 2, split), np.diag([2.0, 2.0, 2.0, 1.0]))
            write_atomically(directory / name, gzip.compress(box.to_bytes(), mtime=0))
            lines[split].append(f"{name} {index % 2}")
    for split, rows in lines.items():
        write_atomically(directory / f"{split}.txt", ("\n".join(rows) + "\n").encode())


def _piece(rng: Generator, kind: int, split: str) -> NDArray[np.uint8]:
    """A piece (SIDE, SIDE, 3) of one of the two photographs, the upper part for training."""
    try:
        from skimage import data
    except ImportError:
        raise UserError("the samples need scikit-image", "pip install 'opsin-core[samples]'") from None
    photo = data.retina()[200:1211, 200:1211] if kind == 0 else data.microaneurysms()
    photo = np.atleast_3d(photo)
    photo = np.repeat(photo, 3, -1) if photo.shape[-1] == 1 else photo[..., :3]
    cut = int(0.7 * len(photo))
    part = photo[:cut] if split == "train" else photo[cut:]
    side = min(int(0.25 * photo.shape[1]), len(part))
    top, left = rng.integers(0, len(part) - side + 1), rng.integers(0, part.shape[1] - side + 1)
    piece = part[top : top + side, left : left + side]
    return np.asarray(cv2.resize(np.ascontiguousarray(piece), (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _head() -> NDArray[np.float32]:
    from nilearn.datasets import load_mni152_template

    head = np.asarray(load_mni152_template(resolution=2).get_fdata(), np.float32)
    return 255 * head / head.max()


def _box(head: NDArray[np.float32], rng: Generator, kind: int, split: str) -> NDArray[np.float32]:
    """(SIDE, SIDE / 2, SIDE) voxels: across, through depth, upwards; training takes the front of the head."""
    depth, height = SIDE // 2, SIDE // 2
    half = head[..., : head.shape[2] // 2] if kind == 0 else head[..., head.shape[2] // 2 :]
    cut = int(0.4 * head.shape[1])
    low, high = (cut, head.shape[1] - depth) if split == "train" else (10, cut - depth + 10)
    front = int(rng.integers(low, max(low + 1, high)))
    left = int(rng.integers(0, head.shape[0] - SIDE + 1))
    bottom = int(rng.integers(0, half.shape[2] - height + 1))
    box = half[left : left + SIDE, front : front + depth, bottom : bottom + height]
    return np.ascontiguousarray(box.repeat(SIDE // height, 2))
