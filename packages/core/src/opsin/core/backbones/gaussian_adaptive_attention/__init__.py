"""Gaussian adaptive attention, whole: the library's block, heads on a frozen encoder's layers, parity."""

from opsin.core.backbones.gaussian_adaptive_attention import parity
from opsin.core.backbones.gaussian_adaptive_attention.block import (
    GaussianAdaptiveAttention,
    GaussianBlock,
    GaussianPlugin,
    MultiHeadGaussianAdaptiveAttention,
)
from opsin.core.backbones.gaussian_adaptive_attention.classifier import FrozenEncoderClassifier
from opsin.core.backbones.gaussian_adaptive_attention.encoder import FrozenEncoder
from opsin.core.backbones.gaussian_adaptive_attention.focal_loss import SoftmaxFocalLoss
from opsin.core.backbones.gaussian_adaptive_attention.grouped_query import GroupedQueryAttention
from opsin.core.backbones.gaussian_adaptive_attention.heads import GATHead, GroupedQueryHead, MHAHead
from opsin.core.backbones.gaussian_adaptive_attention.importance import (
    ImportanceFactors,
    importance_factors,
    write_importance,
)
from opsin.core.backbones.gaussian_adaptive_attention.layer_attention import (
    DensityAdaptiveAttention,
    DensityAdaptiveHeads,
)

__all__ = [
    "DensityAdaptiveAttention",
    "DensityAdaptiveHeads",
    "FrozenEncoder",
    "FrozenEncoderClassifier",
    "GATHead",
    "GaussianAdaptiveAttention",
    "GaussianBlock",
    "GaussianPlugin",
    "GroupedQueryAttention",
    "GroupedQueryHead",
    "ImportanceFactors",
    "MHAHead",
    "MultiHeadGaussianAdaptiveAttention",
    "SoftmaxFocalLoss",
    "importance_factors",
    "parity",
    "write_importance",
]
