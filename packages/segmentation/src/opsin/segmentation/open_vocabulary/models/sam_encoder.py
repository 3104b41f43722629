"""SAM's image encoder (Segment Anything, arXiv 2304.02643): transformers' `SamVisionModel`, frozen.

Files of segment_anything (`sam_vit_b_01ec64.pth`) and of transformers (`model.safetensors`) are read; of
either only the image encoder is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.published import Tensors, load_published
from opsin.segmentation.open_vocabulary.models.mask_pooling import resize

SAM_ARCHS: dict[str, dict[str, Any]] = {
    "vit_b": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "vit_l": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": (5, 11, 17, 23),
    },
    "vit_h": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": (7, 15, 23, 31),
    },
}
INITIALIZER_RANGE = 0.02  # of random stand-ins; transformers' 1e-10 would give a flat map
UNUSED = re.compile(r"(^|\.)(prompt_encoder|mask_decoder|shared_image_embedding)\.|(^|\.)pixel_(mean|std)$")
RENAMES = (
    (r"^(.*\.)?image_encoder\.", ""),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"^neck\.0\.", "neck.conv1."),
    (r"^neck\.1\.", "neck.layer_norm1."),
    (r"^neck\.2\.", "neck.conv2."),
    (r"^neck\.3\.", "neck.layer_norm2."),
    (r"^vision_encoder\.", ""),
)


class SamEncoder(nn.Module):
    """Images to SAM's embedding. It never trains: no gradient, always in eval mode.

    Args:
        arch: 'vit_b', 'vit_l', 'vit_h', or arguments of transformers' `SamVisionConfig`.
        checkpoint: the file; random weights without one.

    Raises:
        UserError: for an unknown arch, if transformers is not installed, or for a file that is missing or of
            another model.
    """

    mean = (123.675, 116.28, 103.53)  # RGB, 0..255
    std = (58.395, 57.12, 57.375)

    def __init__(self, arch: str | Mapping[str, Any] = "vit_b", *, checkpoint: str | None = None) -> None:
        super().__init__()
        try:
            from transformers import SamVisionConfig, SamVisionModel
        except ImportError:
            raise UserError(
                "SAM needs transformers", "pip install 'opsin-segmentation[open-vocabulary]'"
            ) from None
        if isinstance(arch, str):
            if arch not in SAM_ARCHS:
                raise unknown("SAM arch", arch, SAM_ARCHS)
            arch = SAM_ARCHS[arch]
        config = SamVisionConfig(**{"initializer_range": INITIALIZER_RANGE, **arch})
        self.model = SamVisionModel(config)
        self.image_size = int(str(config.image_size))
        self.out_channels = int(config.output_channels)
        if checkpoint is not None:
            load_published(self, checkpoint)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> SamEncoder:
        """Stays in eval mode whatever `mode` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, out_channels, S / 16, S / 16) of an RGB image normalised by `mean` and `std`.

        An image of another size than the encoder's S x S is stretched to it.
        """
        embedded: Tensor = self.model(resize(image, (self.image_size, self.image_size))).last_hidden_state
        return embedded

    def from_published(self, tensors: Tensors) -> Tensors:
        """The image encoder's tensors of a SAM file."""
        converted = {}
        for name, tensor in tensors.items():
            if UNUSED.search(name):
                continue
            for pattern, replacement in RENAMES:
                name = re.sub(pattern, replacement, name)
            converted[f"model.vision_encoder.{name}"] = tensor
        return converted
