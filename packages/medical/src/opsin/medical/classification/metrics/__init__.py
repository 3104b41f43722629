"""Metrics of medical classification."""

from opsin.medical.classification.metrics.diagnosis import DiagnosisMetric, relative_balanced_error

__all__ = ["DiagnosisMetric", "relative_balanced_error"]
