"""How weakly supervised models are measured; seeds by mmseg's `IoUMetric`."""

from opsin.segmentation.weakly_supervised.metrics.localization import LocalizationMetric

__all__ = ["LocalizationMetric"]
