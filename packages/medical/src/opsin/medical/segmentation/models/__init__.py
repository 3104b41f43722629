"""Networks that segment medical pictures, one published system a folder, and the model that trains them."""

from opsin.medical.segmentation.models.mhs_vm import MHSVM, BCEDiceLoss, CEDiceLoss, MHSVMBackbone
from opsin.medical.segmentation.models.multi_scale_attention import GuidedAttentionLoss, MultiScaleAttention
from opsin.medical.segmentation.models.segmentor import MedicalSegmentor, MonaiLoss, monai_network

__all__ = [
    "MHSVM",
    "BCEDiceLoss",
    "CEDiceLoss",
    "GuidedAttentionLoss",
    "MHSVMBackbone",
    "MedicalSegmentor",
    "MonaiLoss",
    "MultiScaleAttention",
    "monai_network",
]
