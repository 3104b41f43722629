"""Transforms from the annotations of text to what a detector is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from numpy.typing import NDArray

from opsin.ocr.text_detection.polygons import bounding_box
from opsin.registry import TRANSFORMS

Results = dict[str, Any]

META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances")


@TRANSFORMS.register_module()
class LoadTextAnnotations(BaseTransform):
    """Turns `instances` into one row of each entry per text, N texts.

    Adds `gt_polygons`, a list of (corners, 2) float32 arrays in pixels; `gt_bboxes` (N, 4) float32, the
    upright boxes around them, x1 y1 x2 y2; `gt_bboxes_labels` (N,), all 0, as there is one class;
    `gt_ignore_flags` (N,) bool, true for don't-care texts; and `gt_texts`, a list of strings.
    """

    def transform(self, results: Results) -> Results:
        """Adds the entries to `results`."""
        instances = results["instances"]
        results["gt_polygons"] = [np.asarray(i["polygon"], np.float32) for i in instances]
        results["gt_texts"] = [i["text"] for i in instances]
        results["gt_ignore_flags"] = np.array([i["ignore"] for i in instances], bool)
        results["gt_bboxes_labels"] = np.zeros(len(instances), np.int64)
        results["gt_bboxes"] = boxes_around(results["gt_polygons"])
        return results


@TRANSFORMS.register_module()
class PackTextInputs(BaseTransform):
    """Packs a sample into `inputs` (3, H, W) uint8 RGB and `data_samples`, a `DetDataSample`.

    Texts go to `gt_instances`, don't-care ones to `ignored_instances`: `bboxes` (N, 4) float32, `labels`
    (N,), `polygons`, a list of (corners, 2) float32 arrays in pixels of `inputs`, and `texts`.

    Args:
        meta_keys: entries to keep beside the picture. `instances`, the annotations in original pixels, is
            what `PolygonHmean` measures against.
    """

    def __init__(self, meta_keys: tuple[str, ...] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: Results) -> Results:
        """The packed sample."""
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        sample = DetDataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        if "gt_polygons" in results:
            ignored = results["gt_ignore_flags"]
            sample.gt_instances = _texts(results, ~ignored)
            sample.ignored_instances = _texts(results, ignored)
        return {"inputs": torch.from_numpy(pixels), "data_samples": sample}


def boxes_around(polygons: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Upright boxes (N, 4) float32, x1 y1 x2 y2, around N polygons."""
    return np.array([bounding_box(p) for p in polygons], np.float32).reshape(-1, 4)


def keep_texts(results: Results, kept: NDArray[Any]) -> None:
    """Keeps the rows `kept` (indices or a mask) of the entries that `LoadTextAnnotations` adds."""
    rows = np.arange(len(results["gt_polygons"]))[kept]
    for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags"):
        results[key] = results[key][rows]
    for key in ("gt_polygons", "gt_texts"):
        results[key] = [results[key][row] for row in rows]


def _texts(results: Results, chosen: NDArray[np.bool_]) -> InstanceData:
    rows = np.flatnonzero(chosen)
    return InstanceData(
        bboxes=torch.from_numpy(results["gt_bboxes"][rows]),
        labels=torch.from_numpy(results["gt_bboxes_labels"][rows]),
        polygons=[results["gt_polygons"][row] for row in rows],
        texts=[results["gt_texts"][row] for row in rows],
    )
