"""Promptable segmentation: points, boxes or nothing at all in, masks out."""
