"""Metrics of X-ray inspection."""

from opsin.detection.xray.metrics.subset_ap import SubsetAP

__all__ = ["SubsetAP"]
