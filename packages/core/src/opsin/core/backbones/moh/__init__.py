"""MoH: Multi-Head Attention as Mixture-of-Head Attention (arXiv 2410.11842, ICML 2025).

Authors' code: SkyworkAI/MoH, Apache-2.0. `routing` holds what the idea is, `attention` plain attention with
it, for any network. Its hosts: `vit` (MoH-ViT, with `transnext`, `positions`, `settings`), `dit` (the network
of MoH-DiT) and `diffusion` (sampling with it), `llama` (the attention of MoH-LLaMA3). `published` runs the
parity cases.
"""

from opsin.core.backbones.moh import published
from opsin.core.backbones.moh.attention import MoHAttention
from opsin.core.backbones.moh.diffusion import sample
from opsin.core.backbones.moh.dit import MoHDiT
from opsin.core.backbones.moh.llama import MoHLlamaAttention
from opsin.core.backbones.moh.routing import auxiliary_losses, head_usage, place_multi_head
from opsin.core.backbones.moh.settings import ARCHS
from opsin.core.backbones.moh.vit import MoHViT, MoHViTClassifier
from opsin.core.models import register_models

__all__ = [
    "MoHAttention",
    "MoHDiT",
    "MoHLlamaAttention",
    "MoHViT",
    "MoHViTClassifier",
    "auxiliary_losses",
    "head_usage",
    "place_multi_head",
    "published",
    "sample",
]

register_models(
    "moh", MoHViTClassifier, {f"moh_vit_{arch}": {"arch": arch} for arch in ARCHS}, backbone=MoHViT
)
