"""Panoptic quality."""

from opsin.segmentation.panoptic.metrics.panoptic_quality import (
    PanopticQuality,
    PQCounts,
    SegmentMap,
    compare,
    evaluate_files,
)

__all__ = ["PQCounts", "PanopticQuality", "SegmentMap", "compare", "evaluate_files"]
