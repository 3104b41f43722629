"""Metrics of image classification."""

from opsin.classification.metrics.accuracy import Accuracy

__all__ = ["Accuracy"]
