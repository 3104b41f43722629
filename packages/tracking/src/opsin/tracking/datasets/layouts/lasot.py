"""LaSOT (arXiv 1809.07845).

<class>/<class>-N/img/00000001.jpg   groundtruth.txt   full_occlusion.txt   out_of_view.txt
testing_set.txt, training_set.txt    names of sequences; without them all sequences are taken
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import (
    VideoSequence,
    numbered_frames,
    read_boxes,
    read_flags,
    read_lines,
    sequence,
)

LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}


def read(root: Path, split: str) -> list[VideoSequence]:
    """The sequences of `train` or `test`.

    Raises:
        UserError: for another split, missing files, or a listed sequence that is not there.
    """
    if split not in LISTS:
        raise UserError(f"LaSOT has no split {split!r}", "use train or test")
    listed = root / LISTS[split]
    if listed.is_file():
        folders = [root / name.rsplit("-", 1)[0] / name for name in read_lines(listed)]
    else:
        folders = sorted(path.parent for path in root.glob("*/*/groundtruth.txt"))
    return [_read_one(folder) for folder in folders]


def _read_one(folder: Path) -> VideoSequence:
    boxes = read_boxes(folder / "groundtruth.txt")
    hidden = np.zeros(len(boxes), bool)
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        if (folder / name).is_file():
            flags = read_flags(folder / name)[: len(boxes)] != 0
            hidden[: len(flags)] |= flags
    return sequence(folder.name, numbered_frames(folder / "img", len(boxes)), boxes, hidden)
