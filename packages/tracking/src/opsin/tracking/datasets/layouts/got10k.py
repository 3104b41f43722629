"""GOT-10k (arXiv 1810.11981).

train/list.txt   train/GOT-10k_Train_000001/00000001.jpg   groundtruth.txt   absence.label   cover.label
val/…            test/…  (groundtruth.txt of test has the first line only)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from opsin.core.data.image import list_images
from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import VideoSequence, read_boxes, read_flags, read_lines, sequence

SPLITS = ("train", "val", "test")


def read(root: Path, split: str) -> list[VideoSequence]:
    """The sequences that `<split>/list.txt` names.

    Raises:
        UserError: for another split or missing files.
    """
    if split not in SPLITS:
        raise UserError(f"GOT-10k has no split {split!r}", f"use {', '.join(SPLITS)}")
    folder = root / split
    return [read_one(folder / name) for name in read_lines(folder / "list.txt")]


def read_one(folder: Path) -> VideoSequence:
    """One sequence folder: frames and `groundtruth.txt`, labels where they are."""
    boxes = read_boxes(folder / "groundtruth.txt")
    hidden = np.zeros(len(boxes), bool)
    for name, hides in (("absence.label", lambda x: x != 0), ("cover.label", lambda x: x == 0)):
        if (folder / name).is_file():
            flags = hides(read_flags(folder / name)[: len(boxes)])
            hidden[: len(flags)] |= flags
    return sequence(folder.name, list_images(folder), boxes, hidden)
