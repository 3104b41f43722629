"""Segmentation of medical pictures and volumes, on MONAI."""
