"""Time of panoptic evaluation for one picture: opsin's metric against mmdet's, which runs panopticapi's code.

    python benchmarks/panoptic_quality.py [HEIGHT WIDTH]

Both get a predicted map in memory and read the truth's PNG. mmdet's metric writes the prediction as a PNG
and reads it back, as panopticapi compares files. Both must count the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opsin.core import compat
from opsin.core.data import write_image
from opsin.segmentation.panoptic.metrics import PanopticQuality
from opsin.segmentation.panoptic.segments import INSTANCE_OFFSET, colours, segments_of
from opsin.segmentation.visualization import distinct_colours

THINGS, CLASSES = 80, 133
SEGMENTS = 40
CELL = 20
REPEATS = 5


def panoptic_map(height: int, width: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """(H, W): unions of squares, half of them things."""
    labels = np.where(np.arange(SEGMENTS) < SEGMENTS // 2, rng.integers(THINGS, size=SEGMENTS), 0)
    labels[SEGMENTS // 2 :] = rng.choice(np.arange(THINGS, CLASSES), SEGMENTS - SEGMENTS // 2, replace=False)
    instance = np.where(labels < THINGS, np.arange(1, SEGMENTS + 1), 0)
    grid = rng.integers(0, SEGMENTS, (height // CELL + 1, width // CELL + 1))
    painted = (labels + INSTANCE_OFFSET * instance)[grid].repeat(CELL, 0).repeat(CELL, 1)
    return painted[:height, :width].astype(np.int32)


def sample(folder: Path, height: int, width: int) -> dict[str, Any]:
    """A truth on disk, and a prediction that differs in a third of the picture."""
    rng = np.random.default_rng(0)
    truth = panoptic_map(height, width, rng)
    segments = segments_of(truth, CLASSES, distinct_colours(CLASSES).tolist())
    write_image(folder / "a.png", colours(truth, segments))
    predicted = truth.copy()
    predicted[: height // 3] = np.roll(truth[: height // 3], 3, 1)
    return {
        "img_id": 0,
        "img_path": "a.jpg",
        "ori_shape": (height, width),
        "seg_map_path": str(folder / "a.png"),
        "segments_info": [{"id": s.id, "category": s.label, "is_thing": s.label < THINGS} for s in segments],
        "pred_panoptic_seg": {"sem_seg": torch.from_numpy(predicted)[None], "ignore_index": CLASSES},
    }


def seconds(run: Callable[[], None]) -> float:
    """CPU time of the fastest of a few runs: others may be at work on this machine."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints both times and their ratio."""
    compat.apply()
    from mmdet.evaluation import CocoPanopticMetric

    height, width = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (480, 640)
    names = tuple(f"class {i}" for i in range(CLASSES))
    meta = {"classes": names, "thing_classes": names[:THINGS], "stuff_classes": names[THINGS:]}
    with tempfile.TemporaryDirectory() as folder:
        given = sample(Path(folder), height, width)
        ours, theirs = PanopticQuality(), CocoPanopticMetric(seg_prefix=folder)
        ours.dataset_meta = theirs.dataset_meta = meta

        def process(metric: Any) -> None:
            copy = given["pred_panoptic_seg"]["sem_seg"].clone()  # mmdet's metric changes the map
            metric.process(
                {}, [{**given, "pred_panoptic_seg": {**given["pred_panoptic_seg"], "sem_seg": copy}}]
            )

        a, b = seconds(lambda: process(ours)), seconds(lambda: process(theirs))
        found, wanted = (metric.compute_metrics(metric.results)["PQ"] for metric in (ours, theirs))
    if not np.isclose(found, wanted):
        raise SystemExit(f"the two metrics disagree: {found} and {wanted}")
    print(f"{width}x{height}: mmdet {1000 * b:.0f} ms, opsin {1000 * a:.0f} ms, ratio {b / a:.1f}")


if __name__ == "__main__":
    main()
