"""Times `opsin.CocoAP` against pycocotools on the same random detections, and checks that both agree.

    python benchmarks/detection_evaluation.py [--images 500] [--classes 12]

Both are given ground truth and detections in memory; loading, matching and accumulation are timed together.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from time import thread_time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from opsin.detection.metrics import CocoAP
from opsin.detection.metrics.coco_ap import predictions

SIZE = (500, 500)


def scenes(images: int, classes: int) -> list[dict[str, Any]]:
    """Samples as `CocoAP.process` takes them: objects, and detections near them and elsewhere."""
    random = np.random.default_rng(0)
    samples = []
    for image_id in range(1, images + 1):
        count = int(random.integers(1, 8))
        corner, side = random.uniform(0, 350, (count, 2)), random.uniform(20, 150, (count, 2))
        boxes = np.concatenate((corner, corner + side), 1)
        labels = random.integers(0, classes, count)
        near = np.repeat(boxes, 5, 0) + random.normal(0, 8, (5 * count, 4))
        corner = random.uniform(0, 350, (60, 2))
        far = np.concatenate((corner, corner + random.uniform(20, 150, (60, 2))), 1)
        samples.append(
            {
                "img_id": image_id,
                "ori_shape": SIZE,
                "instances": [
                    {"bbox": box.tolist(), "bbox_label": int(label), "ignore_flag": 0}
                    for box, label in zip(boxes, labels, strict=True)
                ],
                "pred_instances": {
                    "bboxes": np.concatenate((near, far)),
                    "scores": random.random(5 * count + 60),
                    "labels": np.concatenate((np.repeat(labels, 5), random.integers(0, classes, 60))),
                },
            }
        )
    return samples


def reference(metric: CocoAP) -> float:
    """AP of pycocotools from what `metric` has kept."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = metric._ground_truth(metric.results, with_masks=False)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predictions(metric.results, "bbox")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def main() -> None:
    """Prints both times and both numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--classes", type=int, default=12)
    options = parser.parse_args()
    metric = CocoAP()
    metric.dataset_meta = {"classes": tuple(map(str, range(options.classes)))}
    metric.process(None, scenes(options.images, options.classes))
    start = thread_time()
    own = metric.compute_metrics(metric.results)["bbox_mAP"]
    middle = thread_time()
    theirs = reference(metric)
    end = thread_time()
    print(
        f"{options.images} images: opsin {middle - start:.2f} s, AP {own:.6f}; "
        f"pycocotools {end - middle:.2f} s, AP {theirs:.6f}; ratio {(end - middle) / (middle - start):.1f}"
    )


if __name__ == "__main__":
    main()
