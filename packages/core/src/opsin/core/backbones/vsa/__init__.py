"""Varied-size window attention, whole: the module, ViTAE v2 with it, Swin with it, parity."""

from opsin.core.backbones.vsa import parity
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.network import ViTAEv2VSA, ViTAEv2VSAClassifier

__all__ = ["VSAWindowAttention", "ViTAEv2VSA", "ViTAEv2VSAClassifier", "parity"]
