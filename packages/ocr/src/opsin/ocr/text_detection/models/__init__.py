"""Published text detectors, one file or folder each; the task says which are imported."""

from opsin.core import compat

compat.apply()  # mmdet, which they import, needs mmcv's ops in their places
