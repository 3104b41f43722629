"""Panoptic segmentation: every pixel gets a class, and things are told apart one by one."""

from opsin.core import compat

compat.apply()  # mmdet, which the modules import, needs mmcv's ops in their places
