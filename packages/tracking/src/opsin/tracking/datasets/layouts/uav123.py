"""UAV123 ("A Benchmark and Simulator for UAV Tracking", ECCV 2016).

    data_seq/UAV123/<folder>/000001.jpg   anno/UAV123/<name>.txt   configSeqs.m

Some sequences are ranges of frames of a longer video; the benchmark's own `configSeqs.m` tells which. Rows
without a target are `NaN,NaN,NaN,NaN`.
"""

from __future__ import annotations

import re
from pathlib import Path

from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import VideoSequence, numbered_frames, read_boxes, sequence

ENTRY = re.compile(
    r"struct\(\s*'name'\s*,\s*'([^']+)'\s*,\s*'path'\s*,\s*'([^']+)'\s*,"
    r"\s*'startFrame'\s*,\s*(\d+)\s*,\s*'endFrame'\s*,\s*(\d+)"
)


def read(root: Path, split: str) -> list[VideoSequence]:
    """All sequences; the only split is `test`.

    Raises:
        UserError: for another split or missing files; without `configSeqs.m`, if a sequence has no folder.
    """
    if split != "test":
        raise UserError(f"UAV123 has no split {split!r}", "use test")
    annotations = sorted((root / "anno" / "UAV123").glob("*.txt"))
    if not annotations:
        raise UserError(f"data folder {root} lacks anno/UAV123/*.txt", "give another folder with --data DIR")
    ranges = _ranges(root)
    return [_read_one(root, anno, ranges) for anno in annotations]


def _ranges(root: Path) -> dict[str, tuple[str, int]]:
    """Sequence to its folder and first frame, as `configSeqs.m` says."""
    found = next((path for path in sorted(root.rglob("configSeqs.m"))), None)
    if found is None:
        return {}
    entries = ENTRY.findall(found.read_text(encoding="utf-8", errors="replace"))
    return {
        name: (re.split(r"[\\/]", path.rstrip("\\/"))[-1], int(first)) for name, path, first, _ in entries
    }


def _read_one(root: Path, anno: Path, ranges: dict[str, tuple[str, int]]) -> VideoSequence:
    boxes = read_boxes(anno)
    folder_name, first = ranges.get(anno.stem, (anno.stem, 1))
    folder = root / "data_seq" / "UAV123" / folder_name
    if not folder.is_dir():
        raise UserError(f"no frames for {anno.stem} at {folder}", "is the benchmark's configSeqs.m there?")
    return sequence(anno.stem, numbered_frames(folder, len(boxes), first=first, digits=6), boxes)
