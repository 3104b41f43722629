"""Weakly supervised localisation and segmentation: image labels in, boxes and seeds out."""
