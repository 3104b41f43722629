"""Varied-size window attention, whole: the module, ViTAE v2 and Swin with it, parity."""

from opsin.core.backbones.vsa import parity
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.network import ViTAEv2VSA, ViTAEv2VSAClassifier
from opsin.core.backbones.vsa.swin import SwinVSA, SwinVSAClassifier

__all__ = [
    "SwinVSA",
    "SwinVSAClassifier",
    "VSAWindowAttention",
    "ViTAEv2VSA",
    "ViTAEv2VSAClassifier",
    "parity",
]
