"""Rate, distortion, and the saving of one codec over another."""

from opsin.restoration.compression.metrics.rate_distortion import RateDistortionMetric, bd_rate

__all__ = ["RateDistortionMetric", "bd_rate"]
