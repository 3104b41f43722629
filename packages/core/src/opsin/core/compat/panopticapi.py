"""The five names of `panopticapi` that mmdet asks for.

Needed by: mmdet 3.x, whose panoptic loading and evaluation import COCO's `panopticapi`, which is on no
package index (only in a git repository). An installed panopticapi keeps its place.

Panoptic quality (Kirillov et al., "Panoptic Segmentation", arXiv 1801.00868): a predicted and a true segment
of one class match when their IoU exceeds 0.5; PQ = sum of IoU over the matches / (TP + FP/2 + FN/2) = SQ ·
RQ. A segment's id is stored in a PNG's pixel as R + 256·G + 256²·B; id 0 is no segment.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

OFFSET = 256**3
VOID = 0


def rgb2id(color: Any) -> Any:
    """Segment ids, (H, W) int32, of a picture (H, W, 3); the id of one (r, g, b)."""
    if isinstance(color, np.ndarray) and color.ndim == 3:
        return color.astype(np.int32) @ np.array([1, 256, 256**2], dtype=np.int32)
    return int(color[0]) + 256 * int(color[1]) + 256**2 * int(color[2])


def id2rgb(segment: Any) -> Any:
    """The picture (H, W, 3) uint8 of segment ids (H, W); the [r, g, b] of one id."""
    if isinstance(segment, np.ndarray):
        parts: NDArray[Any] = segment[..., None] // np.array([1, 256, 256**2]) % 256
        return parts.astype(np.uint8)
    return [int(segment) // place % 256 for place in (1, 256, 256**2)]


@dataclass
class PQStatCat:
    """Counts of one class: summed IoU of the matches, true and false positives, false negatives."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self

    def quality(self) -> dict[str, float]:
        """`pq`, `sq` and `rq`; all 0 where nothing was found or to be found."""
        size = self.tp + 0.5 * self.fp + 0.5 * self.fn
        if size == 0:
            return {"pq": 0.0, "sq": 0.0, "rq": 0.0}
        return {
            "pq": float(self.iou / size),
            "sq": float(self.iou / self.tp) if self.tp else 0.0,
            "rq": float(self.tp / size),
        }


class PQStat:
    """The counts of every class, by category id."""

    def __init__(self) -> None:
        self.pq_per_cat: defaultdict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """The mean over the classes that occur, and each class's own values.

        Args:
            categories: COCO's categories by id, each with `isthing`.
            isthing: True for things only, False for stuff only, None for all.
        """
        per_class: dict[int, dict[str, float]] = {}
        present = []
        for category, info in categories.items():
            if isthing is not None and (info["isthing"] == 1) != isthing:
                continue
            counts = self.pq_per_cat[category]
            per_class[category] = counts.quality()
            if counts.tp + counts.fp + counts.fn:
                present.append(per_class[category])
        mean = {key: sum(q[key] for q in present) / max(len(present), 1) for key in ("pq", "sq", "rq")}
        return {**mean, "n": len(present)}, per_class


_MODULES: dict[str, dict[str, Any]] = {
    "panopticapi": {"__path__": []},
    "panopticapi.utils": {"rgb2id": rgb2id, "id2rgb": id2rgb},
    "panopticapi.evaluation": {"OFFSET": OFFSET, "VOID": VOID, "PQStat": PQStat, "PQStatCat": PQStatCat},
}


class _Finder(MetaPathFinder, Loader):
    """Finds `panopticapi` and its two modules; stands behind the finders of installed packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        return spec_from_loader(fullname, self, is_package=fullname == "panopticapi")

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])


def needed() -> bool:
    """Whether panopticapi is not installed."""
    return PathFinder.find_spec("panopticapi") is None


def apply() -> None:
    """Puts the finder in place."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
