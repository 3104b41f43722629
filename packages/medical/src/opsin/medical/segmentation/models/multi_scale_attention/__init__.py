"""Multi-scale self-guided attention for medical image segmentation."""

from opsin.medical.segmentation.models.multi_scale_attention import published
from opsin.medical.segmentation.models.multi_scale_attention.attention import (
    AttentionLayer,
    ChannelAttention,
    PositionAttention,
    SemanticModule,
)
from opsin.medical.segmentation.models.multi_scale_attention.losses import GuidedAttentionLoss
from opsin.medical.segmentation.models.multi_scale_attention.network import GuidedOutput, MultiScaleAttention

__all__ = [
    "AttentionLayer",
    "ChannelAttention",
    "GuidedAttentionLoss",
    "GuidedOutput",
    "MultiScaleAttention",
    "PositionAttention",
    "SemanticModule",
    "published",
]
