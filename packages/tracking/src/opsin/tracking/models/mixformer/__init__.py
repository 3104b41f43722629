"""MixFormer and MixViT: trackers in which one transformer extracts features and compares them.

Papers: "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (arXiv 2203.11082) and its extension
to plain transformers (arXiv 2302.02814). Published code: MCG-NJU/MixFormer (MIT).

Template crops (B, 3, h, w), the first frame's and recent ones, and a search region (B, 3, H, W) to a box
(cx, cy, w, h over the region's sides) and a score. What differs from a naive reading:

* attention is asymmetric: templates never see the search region, so they are encoded once and their keys and
  values serve every frame until a template changes;
* CvT's attention and the score head scale logits by the whole width, MixViT's by a head's;
* coordinates of corners are cell index times stride, without half a cell;
* the score head compares with the first frame's template, whatever the online templates are.

Published names are kept. Tensors of the published files that nothing is computed with are dropped.
"""

from opsin.tracking.models.mixformer import authors_files, published
from opsin.tracking.models.mixformer.backbone import MixedBackbone
from opsin.tracking.models.mixformer.corner_head import CornerHead, PyramidCornerHead
from opsin.tracking.models.mixformer.cvt import MixCvT
from opsin.tracking.models.mixformer.memory import TemplateMemory
from opsin.tracking.models.mixformer.network import VARIANTS, MixFormer, Prediction
from opsin.tracking.models.mixformer.prroi_pool import prroi_pool
from opsin.tracking.models.mixformer.score_head import ScoreHead
from opsin.tracking.models.mixformer.vit import MixConvMAE, MixViT

__all__ = [
    "VARIANTS",
    "CornerHead",
    "MixConvMAE",
    "MixCvT",
    "MixFormer",
    "MixViT",
    "MixedBackbone",
    "Prediction",
    "PyramidCornerHead",
    "ScoreHead",
    "TemplateMemory",
    "authors_files",
    "prroi_pool",
    "published",
]
