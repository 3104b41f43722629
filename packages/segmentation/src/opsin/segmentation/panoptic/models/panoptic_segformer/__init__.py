"""Panoptic SegFormer: Delving Deeper into Panoptic Segmentation with Transformers (arXiv 2109.03814).

A Deformable-DETR encoder refines three maps of any backbone and a fourth; a location decoder turns queries
into location-aware ones, supervised by things; two mask decoders, one for things and one for stuff, read
masks off their attention; mask-wise merging makes one panoptic map of them. Images (N, 3, H, W) go in; out
come a panoptic map, boxes and instance masks.
"""

from typing import Any

from opsin.core.models import register_models
from opsin.segmentation.panoptic.models.panoptic_segformer import published
from opsin.segmentation.panoptic.models.panoptic_segformer.detector import PanopticSegFormer
from opsin.segmentation.panoptic.models.panoptic_segformer.head import PanopticSegFormerHead
from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import MaskDecoder

__all__ = ["MaskDecoder", "PanopticSegFormer", "PanopticSegFormerHead", "published"]


def _resnet(depth: int) -> dict[str, Any]:
    backbone = {
        "type": "mmdet.ResNet",
        "depth": depth,
        "out_indices": (1, 2, 3),
        "frozen_stages": 1,
        "norm_cfg": {"type": "BN", "requires_grad": False},
        "norm_eval": True,
        "style": "pytorch",
    }
    return {"backbone": backbone, "in_channels": (512, 1024, 2048)}


PVTV2_B5 = {
    "type": "mmdet.PyramidVisionTransformerV2",
    "embed_dims": 64,
    "num_layers": [3, 6, 40, 3],
    "mlp_ratios": (4, 4, 4, 4),
    "out_indices": (1, 2, 3),
}
SWIN_L = {
    "type": "mmdet.SwinTransformer",
    "embed_dims": 192,
    "depths": [2, 2, 18, 2],
    "num_heads": [6, 12, 24, 48],
    "window_size": 7,
    "drop_path_rate": 0.3,
    "out_indices": (1, 2, 3),
}
STRICT_SCORES = {"merging": {"min_score_things": 0.3, "min_score_stuff": 0.3}}

VARIANTS: dict[str, dict[str, Any]] = {
    "panoptic_segformer_r50": _resnet(50),
    "panoptic_segformer_r101": _resnet(101),
    "panoptic_segformer_pvtv2_b5": {
        "backbone": PVTV2_B5,
        "in_channels": (128, 320, 512),
        "test_cfg": STRICT_SCORES,
    },
    "panoptic_segformer_swin_l": {
        "backbone": SWIN_L,
        "in_channels": (384, 768, 1536),
        "test_cfg": STRICT_SCORES,
    },
}

register_models("panoptic-segformer", PanopticSegFormer, VARIANTS)
