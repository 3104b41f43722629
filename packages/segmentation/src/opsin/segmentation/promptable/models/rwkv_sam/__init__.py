"""RWKV-SAM, whole: backbone, prompt encoder, mask decoder, names of models, parity."""

from opsin.core.models import register_models
from opsin.segmentation.promptable.models.rwkv_sam import published
from opsin.segmentation.promptable.models.rwkv_sam.backbone import ARCHS, RWKVSAMBackbone
from opsin.segmentation.promptable.models.rwkv_sam.network import RWKVSAM, ImageFeatures
from opsin.segmentation.promptable.models.rwkv_sam.prompt_encoder import PromptEncoder
from opsin.segmentation.promptable.prompts import Prompts

__all__ = ["RWKVSAM", "ImageFeatures", "PromptEncoder", "Prompts", "RWKVSAMBackbone", "published"]

register_models(
    "rwkv-sam", RWKVSAM, {f"rwkv_sam_{arch}": {"arch": arch} for arch in ARCHS}, backbone=RWKVSAMBackbone
)
