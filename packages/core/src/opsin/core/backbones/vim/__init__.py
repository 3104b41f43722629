"""Vision Mamba (Vim), whole: rotary embedding, mixer, networks, names of models, parity."""

from opsin.core.backbones.vim import published
from opsin.core.backbones.vim.mixer import BiMamba
from opsin.core.backbones.vim.model import VisionMamba, VisionMambaClassifier
from opsin.core.backbones.vim.settings import VimSettings
from opsin.core.models import register_models

__all__ = ["BiMamba", "VimSettings", "VisionMamba", "VisionMambaClassifier", "published"]

register_models(
    "vim",
    VisionMambaClassifier,
    {
        "vim_tiny": {"arch": "tiny"},
        "vim_tiny_stride8": {"arch": "tiny", "stride": 8},
        "vim_small": {"arch": "small"},
        "vim_small_stride8": {"arch": "small", "stride": 8},
        "vim_base": {"arch": "base"},
    },
    backbone=VisionMamba,
)
