"""Detection metrics."""

from opsin.detection.metrics.analysis import DetectionAnalysis
from opsin.detection.metrics.coco_ap import CocoAP

__all__ = ["CocoAP", "DetectionAnalysis"]
