"""Semantic and panoptic segmentation on mmsegmentation and mmdet, with opsin's backbones."""
