"""PIDray in its published layout, and a checker of folders in it."""

from opsin.detection.xray.datasets.pidray import PIDray

__all__ = ["PIDray"]
