"""TrackingNet (arXiv 1803.10794).

TRAIN_0/frames/<sequence>/0.jpg   TRAIN_0/anno/<sequence>.txt   … TRAIN_11
TEST/frames/<sequence>/0.jpg      TEST/anno/<sequence>.txt  (the first line only)
"""

from __future__ import annotations

from pathlib import Path

from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import VideoSequence, read_boxes, sequence

SETS = {"train": "TRAIN_*", "test": "TEST"}


def read(root: Path, split: str) -> list[VideoSequence]:
    """The sequences of `train` (all parts that are there) or `test`.

    Raises:
        UserError: for another split, a part without annotations, or a sequence without frames.
    """
    if split not in SETS:
        raise UserError(f"TrackingNet has no split {split!r}", "use train or test")
    parts = sorted(path for path in root.glob(SETS[split]) if path.is_dir())
    if not parts:
        raise UserError(f"data folder {root} lacks {SETS[split]}/", "give another folder with --data DIR")
    return [_read_one(part, anno) for part in parts for anno in sorted((part / "anno").glob("*.txt"))]


def _read_one(part: Path, anno: Path) -> VideoSequence:
    boxes = read_boxes(anno)
    folder = part / "frames" / anno.stem
    frames = sorted(folder.glob("*.jpg"), key=lambda path: int(path.stem) if path.stem.isdigit() else -1)
    if not frames:
        raise UserError(f"no frame in {folder}", f"{anno} annotates it")
    return sequence(anno.stem, frames[: len(boxes)] if len(boxes) > 1 else frames, boxes)
