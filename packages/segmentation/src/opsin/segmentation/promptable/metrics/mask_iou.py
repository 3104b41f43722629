"""How well masks fit: IoU of the masks, and of their boundaries (Boundary IoU, arXiv 2103.16562)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS

Mask = NDArray[Any]

DILATION_RATIO = 0.02  # width of a boundary over the picture's diagonal


def mask_iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks (H, W); 1 if both are empty."""
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0


def boundary(mask: Mask, ratio: float = DILATION_RATIO) -> Mask:
    """The pixels of a mask (H, W) near its border, which the picture's edge is part of.

    Those that as many erosions by 3x3 take away as `ratio` of the diagonal has pixels, at least one.
    """
    width = max(1, round(ratio * float(np.hypot(*mask.shape))))
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask.astype(bool) & ~inner.astype(bool)


@METRICS.register_module()
class MaskMetric(BaseMetric):
    """Means over all masks of the data set, in percent: `promptable/mIoU` and `promptable/bIoU`.

    Every prompt has one mask, so they are compared one by one.

    Args:
        base: arguments of mmengine's `BaseMetric`.
    """

    default_prefix = "promptable"

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Measures `pred_masks` against `gt_masks`, both (N, H, W)."""
        for sample in data_samples:
            pairs = zip(sample["pred_masks"].cpu().numpy(), sample["gt_masks"].cpu().numpy(), strict=True)
            for found, wanted in pairs:
                edges = mask_iou(boundary(found), boundary(wanted))
                self.results.append((mask_iou(found, wanted), edges))

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        """The means.

        Raises:
            UserError: if the data have no mask.
        """
        if not results:
            raise UserError("the test data have no mask to measure")
        iou, edges = 100 * np.mean(results, axis=0)
        return {"mIoU": float(iou), "bIoU": float(edges)}
