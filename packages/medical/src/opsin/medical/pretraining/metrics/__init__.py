"""Metrics of pretraining."""

from opsin.medical.pretraining.metrics.explained import ExplainedVariance

__all__ = ["ExplainedVariance"]
