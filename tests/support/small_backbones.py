"""Opsin's backbones, small, as configs name them: the same arguments make the classifier of the family.

A key is the system's slug. Small means a few thousand parameters and a forward of milliseconds at 64 pixels.
"""

from typing import Any

from opsin.core.backbones.backbone import Backbone, Classifier
from opsin.registry import MODELS

BACKBONES: dict[str, dict[str, Any]] = {
    "convnext": {
        "type": "opsin.ConvNeXt",
        "arch": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
        "layer_scale_init_value": 1.0,
    },
    "crossvit": {
        "type": "opsin.CrossViT",
        "arch": {
            "embed_dim": (8, 16),
            "depth": ((1, 2, 0), (1, 1, 0)),
            "num_heads": (2, 2),
            "mlp_ratio": (2, 2),
        },
        "img_size": (60, 48),
    },
    "davit": {
        "type": "opsin.DaViT",
        "arch": {
            "depths": (1, 1, 1, 1),
            "embed_dims": (8, 8, 16, 16),
            "num_heads": (1, 2, 2, 4),
            "window_size": 3,
            "overlapped_patch": False,
        },
    },
    "msvmamba": {
        "type": "opsin.MSVMamba",
        "arch": {"dims": 8, "depths": (1, 1, 1, 1)},
        "squeeze_excite": False,  # its ReLU may shut all of so few channels
    },
    "van": {
        "type": "opsin.VAN",
        "arch": {"embed_dims": (8, 12, 16, 20), "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2)},
    },
    "shvit": {
        "type": "opsin.SHViT",
        "arch": {"dims": (16, 24, 32), "depths": (1, 2, 1), "partial_dims": (4, 6, 8)},
    },
    "focalnet": {
        "type": "opsin.FocalNet",
        "arch": {"depths": (1, 1, 2, 1), "embed_dim": 8, "mlp_ratio": 2.0},
    },
    "vim": {
        "type": "opsin.VisionMamba",
        "arch": {"embed_dim": 16, "depth": 4},
        "img_size": 96,
    },
}


def small_backbone(name: str, **changes: Any) -> Backbone:
    """The small backbone of a system."""
    return MODELS.build({**BACKBONES[name], **changes})


def small_classifier(name: str, **changes: Any) -> Classifier:
    """The classifier of the same settings, of four classes."""
    config = BACKBONES[name]
    return MODELS.build({**config, "type": f"{config['type']}Classifier", "num_classes": 4, **changes})
