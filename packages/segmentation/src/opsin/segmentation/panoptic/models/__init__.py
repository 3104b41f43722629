"""Panoptic models."""

from opsin.segmentation.panoptic.merging import MaskwiseFusionHead
from opsin.segmentation.panoptic.models.panoptic_segformer import PanopticSegFormer, PanopticSegFormerHead

__all__ = ["MaskwiseFusionHead", "PanopticSegFormer", "PanopticSegFormerHead"]
