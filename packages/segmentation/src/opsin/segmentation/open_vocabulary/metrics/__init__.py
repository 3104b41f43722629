"""How well every pixel's class is found, against panoptic files."""

from opsin.segmentation.open_vocabulary.metrics.semantic_iou import SemanticIoU

__all__ = ["SemanticIoU"]
