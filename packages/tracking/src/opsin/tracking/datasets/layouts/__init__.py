"""The layouts of tracking benchmarks: a folder and a split to sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from opsin.core.errors import UserError, unknown
from opsin.tracking.datasets.layouts import coco, got10k, lasot, otb100, trackingnet, uav123, vid, vot
from opsin.tracking.datasets.sequence import VideoSequence

LAYOUTS: dict[str, Callable[[Path, str], list[VideoSequence]]] = {
    "lasot": lasot.read,
    "got10k": got10k.read,
    "trackingnet": trackingnet.read,
    "uav123": uav123.read,
    "otb100": otb100.read,
    "vot": vot.read,
    "coco": coco.read,
    "vid": vid.read,
}


def read_sequences(layout: str, root: Path, split: str) -> list[VideoSequence]:
    """The sequences of a benchmark's split.

    Args:
        layout: a name in `LAYOUTS`.
        root: the benchmark's folder.
        split: `train`, `val` or `test`, as far as the benchmark has them.

    Raises:
        UserError: for an unknown layout, missing or damaged files (names them), or no sequence at all.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if not root.is_dir():
        raise UserError(f"no data folder {root}", "give the right one with --data DIR")
    found = LAYOUTS[layout](root, split)
    if not found:
        raise UserError(f"no sequence in {root}", f"is it the {split} set of {layout}, and in its layout?")
    return found
