"""Metrics of text detection."""

from opsin.ocr.text_detection.metrics.polygon_hmean import PolygonHmean

__all__ = ["PolygonHmean"]
