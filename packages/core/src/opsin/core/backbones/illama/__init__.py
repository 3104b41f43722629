"""Adapting LLaMA Decoder to Vision Transformer (iLLaMA), whole.

arXiv 2404.06773; code techmonsterwang/iLLaMA, which has no licence. `model` is the network, `soft_mask` the
schedule that its training needs, `llama2` its initial weights from a language model, `published` the parity.
"""

from opsin.core.backbones.illama import published
from opsin.core.backbones.illama.llama2 import load_llama2
from opsin.core.backbones.illama.model import ILLaMA, ILLaMAClassifier
from opsin.core.backbones.illama.settings import ARCHS
from opsin.core.backbones.illama.soft_mask import SoftMaskHook, soft_mask_schedule
from opsin.core.models import register_models

__all__ = ["ILLaMA", "ILLaMAClassifier", "SoftMaskHook", "load_llama2", "published", "soft_mask_schedule"]

register_models(
    "illama",
    ILLaMAClassifier,
    {f"illama_{arch}": {"arch": arch} for arch in ARCHS}
    | {f"illama_{arch}_384": {"arch": arch, "img_size": 384} for arch in ("base", "large")},
    backbone=ILLaMA,
)
