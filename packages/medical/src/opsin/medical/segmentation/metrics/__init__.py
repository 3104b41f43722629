"""How well pictures and volumes are segmented."""

from opsin.medical.segmentation.metrics.pixels import PooledPixelMetric
from opsin.medical.segmentation.metrics.subjects import SubjectDiceMetric
from opsin.medical.segmentation.metrics.surfaces import OverlapSurfaceMetric, pooled_hausdorff95

__all__ = ["OverlapSurfaceMetric", "PooledPixelMetric", "SubjectDiceMetric", "pooled_hausdorff95"]
