"""Detection data: COCO json and Pascal VOC, and the transforms from their annotations to mmdet's models."""

from opsin.detection.datasets.coco import CocoDetection
from opsin.detection.datasets.objects import LoadObjects
from opsin.detection.datasets.packing import PackDetection
from opsin.detection.datasets.voc import PascalVOC

__all__ = ["CocoDetection", "LoadObjects", "PackDetection", "PascalVOC"]
