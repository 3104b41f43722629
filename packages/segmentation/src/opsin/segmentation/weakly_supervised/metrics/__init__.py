"""How weakly supervised models are measured; seeds by mmseg's `IoUMetric`."""

from opsin.segmentation.weakly_supervised.metrics.localization import LocalizationMetric
from opsin.segmentation.weakly_supervised.metrics.pixel_localization import PixelLocalizationMetric

__all__ = ["LocalizationMetric", "PixelLocalizationMetric"]
