"""How promptable models are measured."""

from opsin.segmentation.promptable.metrics.mask_iou import MaskMetric, boundary, mask_iou

__all__ = ["MaskMetric", "boundary", "mask_iou"]
