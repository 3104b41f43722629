"""Published X-ray detectors, one file each."""

from opsin.core import compat

compat.apply()  # mmdet, which they import, needs mmcv's ops in their places
