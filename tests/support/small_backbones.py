"""Opsin's backbones, small, as configs name them, and the widths of their four maps."""

from typing import Any

BACKBONES: dict[str, dict[str, Any]] = {
    "convnext": {
        "type": "opsin.ConvNeXt",
        "arch": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
        "out_indices": (0, 1, 2, 3),
    },
    "vim": {
        "type": "opsin.VisionMamba",
        "arch": {"embed_dim": 16, "depth": 4},
        "img_size": 96,
        "out_indices": (0, 1, 2, 3),
    },
}
WIDTHS = {"convnext": [8, 16, 24, 32], "vim": [16, 16, 16, 16]}
