"""OTB100 ("Object Tracking Benchmark", TPAMI 2015).

    <Sequence>/img/0001.jpg   groundtruth_rect.txt; groundtruth_rect.1.txt, …2.txt where there are two targets

Boxes count pixels from 1. Four sequences begin later than their first file or file number.
"""

from __future__ import annotations

from pathlib import Path

from opsin.core.data.image import list_images
from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import VideoSequence, read_boxes, sequence

STARTS = {"David": 300, "BlurCar1": 247, "BlurCar3": 3, "BlurCar4": 18}


def read(root: Path, split: str) -> list[VideoSequence]:
    """All sequences; the only split is `test`. A second target's sequence is `Jogging-2`.

    Raises:
        UserError: for another split, or a folder without sequences.
    """
    if split != "test":
        raise UserError(f"OTB100 has no split {split!r}", "use test")
    files = sorted(root.glob("*/groundtruth_rect*.txt"))
    if not files:
        raise UserError(f"data folder {root} lacks */groundtruth_rect.txt", "give another with --data DIR")
    return [_read_one(file) for file in files]


def _read_one(file: Path) -> VideoSequence:
    folder = file.parent
    boxes = read_boxes(file)
    boxes[:, :2] -= 1
    first = STARTS.get(folder.name, 0)
    frames = [
        path for path in list_images(folder / "img") if not path.stem.isdigit() or int(path.stem) >= first
    ]
    target = file.stem.removeprefix("groundtruth_rect").strip(".")
    return sequence(f"{folder.name}-{target}" if target else folder.name, frames[: len(boxes)], boxes)
