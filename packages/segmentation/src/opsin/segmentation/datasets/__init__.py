"""Readers of segmentation data on disk, and the transforms that read its annotations."""

from opsin.segmentation.datasets.mask_pairs import ADE20K, LoadMask, MaskPairs

__all__ = ["ADE20K", "LoadMask", "MaskPairs"]
