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
