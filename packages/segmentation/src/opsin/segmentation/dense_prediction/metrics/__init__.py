"""How well depth and surface normals are predicted; classes are counted by `mmseg.IoUMetric`."""

from opsin.segmentation.dense_prediction.metrics.depth import DepthQuality, depth_errors
from opsin.segmentation.dense_prediction.metrics.normals import NormalQuality, angles

__all__ = ["DepthQuality", "NormalQuality", "angles", "depth_errors"]
