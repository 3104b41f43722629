"""Tiny random stand-ins for CLIP and SAM, and a tiny head between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHANNELS = (16, 24, 32, 40)
D = 12  # width of the text features
TINY: dict[str, Any] = {
    "dim": 32,
    "num_queries": 5,
    "encoder_depth": 1,
    "encoder_ffn_dim": 16,
    "decoder_depth": 4,
    "decoder_ffn_dim": 16,
    "num_heads": 4,
}
STAND_INS: dict[str, Any] = {
    "clip": {
        "arch": {
            "embed_dim": D,
            "visual": {"type": "convnext", "arch": {"depths": (1, 1, 1, 1), "dims": CHANNELS}},
            "text": {"width": 16, "layers": 1, "heads": 2, "context_length": 48},
        }
    },
    "sam": {
        "arch": {
            "hidden_size": 16,
            "output_channels": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "global_attn_indexes": (0,),
            "image_size": 64,
        }
    },
    "head": TINY,
}


def segment_anything_names(sam: torch.nn.Module) -> dict[str, Tensor]:
    """A SAM encoder's tensors under segment_anything's names."""
    renames = {
        "model.vision_encoder.": "",
        "patch_embed.projection": "patch_embed.proj",
        "layers.": "blocks.",
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
    }
    neck = {"neck.conv1": "neck.0", "neck.norm1": "neck.1", "neck.conv2": "neck.2", "neck.norm2": "neck.3"}
    named = {}
    for name, tensor in sam.state_dict().items():
        for old, new in (renames | neck).items():
            name = name.replace(old, new)
        named[name] = tensor
    return named
