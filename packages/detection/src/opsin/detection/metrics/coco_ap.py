"""COCO's average precision of boxes and masks, for any detection dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as run_lengths
from mmengine.evaluator import BaseMetric

from opsin.core.errors import UserError
from opsin.detection.datasets.objects import encode_mask
from opsin.registry import METRICS

Annotation = dict[str, Any]

# Where COCO's summary has each number. One that has no ground truth to be measured on (-1) is left out.
STATS = {"mAP": 0, "mAP_50": 1, "mAP_75": 2, "mAP_s": 3, "mAP_m": 4, "mAP_l": 5, "AR_100": 8}


@METRICS.register_module()
class CocoAP(BaseMetric):
    """AP over IoU 0.5 … 0.95 as COCO computes it, in `faster-coco-eval`.

    The ground truth is what the dataset's samples carry (`instances`), so COCO json and Pascal VOC are
    measured alike; objects to be ignored count as crowds. Gives `coco/bbox_mAP`, `coco/bbox_mAP_50`, `_75`,
    `_s`, `_m`, `_l` (areas below 32², below 96², above) and `coco/bbox_AR_100`, in 0 … 1; the same with
    `segm_` for masks.

    Args:
        kinds: `bbox`, `segm` or both.
        classwise: also `coco/bbox_mAP_50/CLASS` for each class.
        **kwargs: mmengine's `collect_device` and `prefix`.

    Raises:
        UserError: when there is no annotated object to measure against.
    """

    default_prefix = "coco"

    def __init__(self, *, kinds: Sequence[str] = ("bbox",), classwise: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        unknown = set(kinds) - {"bbox", "segm"}
        if unknown:
            raise UserError(f"CocoAP measures 'bbox' and 'segm', not {', '.join(sorted(unknown))}")
        self.kinds = tuple(kinds)
        self.classwise = classwise

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the ground truth and the predictions of a batch."""
        for sample in data_samples:
            height, width = sample["ori_shape"]
            predicted = {key: _to_numpy(value) for key, value in sample["pred_instances"].items()}
            if "segm" in self.kinds:
                predicted["masks"] = encode_predicted(predicted["masks"])
            self.results.append(
                {
                    "image": {"id": sample["img_id"], "height": height, "width": width},
                    "path": sample.get("img_path", ""),
                    "instances": sample["instances"],
                    "predicted": predicted,
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The numbers over all images."""
        if not any(result["instances"] for result in results):
            raise UserError("the evaluation data have no annotated object", "AP is undefined without any")
        metrics: dict[str, float] = {}
        for kind in self.kinds:
            truth = COCO(self._ground_truth(results, with_masks=kind == "segm"))
            detections = truth.loadRes(predictions(results, kind))
            evaluation = COCOeval_faster(truth, detections, kind, print_function=lambda *_: None)
            evaluation.run()
            stats = {f"{kind}_{name}": float(evaluation.stats[i]) for name, i in STATS.items()}
            if self.classwise:
                stats |= self._classwise(kind, evaluation)
            metrics |= {name: value for name, value in stats.items() if value >= 0}
        return metrics

    def _ground_truth(self, results: list[dict[str, Any]], *, with_masks: bool) -> dict[str, Any]:
        annotations = [
            _annotation(instance, result, with_masks)
            for result in results
            for instance in result["instances"]
        ]
        for index, annotation in enumerate(annotations):
            annotation["id"] = index + 1
        classes = self.dataset_meta["classes"] if self.dataset_meta else ()
        return {
            "images": [result["image"] for result in results],
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        }

    def _classwise(self, kind: str, evaluation: Any) -> dict[str, float]:
        classes = self.dataset_meta["classes"] if self.dataset_meta else ()
        precision = evaluation.eval["precision"]  # (IoU, recall, class, area, detections an image)
        at_50 = precision[0, :, :, 0, -1]
        return {
            f"{kind}_mAP_50/{name}": float(np.mean(at_50[:, label])) for label, name in enumerate(classes)
        }


def predictions(results: list[dict[str, Any]], kind: str) -> list[Annotation]:
    """COCO's list of results; categories are labels."""
    found = []
    for result in results:
        predicted = result["predicted"]
        for index, (box, score, label) in enumerate(
            zip(predicted["bboxes"], predicted["scores"], predicted["labels"], strict=True)
        ):
            entry = {"image_id": result["image"]["id"], "category_id": int(label), "score": float(score)}
            if kind == "segm":
                entry["segmentation"] = predicted["masks"][index]
            else:
                entry["bbox"] = xywh(box)
            found.append(entry)
    return found


def xywh(box: Sequence[float]) -> list[float]:
    """Corners x1 y1 x2 y2 as COCO writes boxes: x, y, width, height."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def encode_predicted(masks: Any) -> list[dict[str, Any]]:
    """Masks (N, H, W) of 0 and 1, or run lengths already, as COCO's compressed run lengths."""
    if isinstance(masks, list):
        return masks
    return [run_lengths.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def _annotation(instance: Annotation, result: dict[str, Any], with_masks: bool) -> Annotation:
    x, y, width, height = xywh(instance["bbox"])
    annotation = {
        "image_id": result["image"]["id"],
        "category_id": instance["bbox_label"],
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": instance["ignore_flag"],
    }
    if with_masks:
        image = result["image"]
        mask = encode_mask(instance, (image["height"], image["width"]), result["path"])
        annotation |= {"segmentation": mask, "area": float(run_lengths.area(mask))}
    return annotation


def _to_numpy(value: Any) -> Any:
    return value.cpu().numpy() if hasattr(value, "cpu") else value
