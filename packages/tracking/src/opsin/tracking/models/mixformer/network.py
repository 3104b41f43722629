"""The whole network: backbone, corner head, and the score head of online trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from opsin.core.models import register_models
from opsin.registry import MODELS
from opsin.tracking.boxes import to_centre
from opsin.tracking.models.mixformer.backbone import MixedBackbone
from opsin.tracking.models.mixformer.memory import TemplateMemory

Config = dict[str, Any]

UNUSED = (
    "backbone.norm.",
    "backbone.head.",
    "backbone.cls_token",
    "backbone.pos_embed",
)
"""Beginnings of published names that the published network computes nothing with, and of its fixed tables."""


class Prediction(NamedTuple):
    """What a search region shows.

    Attributes:
        boxes: cx, cy, w, h over the crop's sides, (B, 4).
        logits: of the score, (B,); None without a score head.
    """

    boxes: Tensor
    logits: Tensor | None


@MODELS.register_module()
class MixFormer(nn.Module):
    """MixFormer and MixViT.

    Args:
        backbone: config of a `MixedBackbone`.
        head: config of a corner head; `in_channels` is the backbone's.
        score: config of the score head; `dim` is the backbone's. None: an offline tracker.
    """

    def __init__(self, backbone: Config, head: Config, score: Config | None = None) -> None:
        super().__init__()
        self.backbone: MixedBackbone = MODELS.build(backbone)
        channels = self.backbone.channels
        self.box_head = MODELS.build({"in_channels": channels, **head})
        self.score_branch = None if score is None else MODELS.build({"dim": channels, **score})

    def forward(self, template: Tensor, online: Tensor, search: Tensor) -> Prediction:
        """Normalised crops to the box and score in each search region.

        Args:
            template: (B, 3, h, w), the first frame's.
            online: (B, 3, h, w), a recent one; or several, (B, T, 3, h, w).
            search: (B, 3, H, W).
        """
        return self.look(search, self.remember(template, online))

    def remember(self, template: Tensor, online: Tensor) -> TemplateMemory:
        """What search regions need of the templates; shapes as in `forward`."""
        online = online if online.ndim == 5 else online[:, None]
        return self.backbone.encode_templates(torch.cat((template[:, None], online), dim=1))

    def look(self, search: Tensor, memory: TemplateMemory, boxes: Tensor | None = None) -> Prediction:
        """The box and score in search regions (B, 3, H, W).

        Args:
            search: normalised crops.
            memory: of the templates.
            boxes: x1, y1, x2, y2 over the crop's sides (B, 4), to be scored instead of the prediction.
        """
        features = self.backbone.encode_search(search, memory)
        corners = self.box_head(features)
        logits = None
        if self.score_branch is not None:
            logits = self.score_branch(features, memory.first, corners if boxes is None else boxes)
        return Prediction(to_centre(corners), logits)

    def example_inputs(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of `forward` for a search region (B, 3, H, W): templates of two fifths its side."""
        stride = self.backbone.stride
        side = max(stride, round(0.4 * image.shape[3] / stride) * stride)
        template = image.new_zeros(len(image), 3, side, side)
        return template, template, image

    @staticmethod
    def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published tensors without those that nothing is computed with."""
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}


_CVT: Config = {"type": "opsin.MixCvT"}
_CVT_LARGE: Config = {
    "type": "opsin.MixCvT",
    "dims": (192, 768, 1024),
    "depths": (2, 2, 12),
    "num_heads": (3, 12, 16),
    "drop_path_rates": (0.0, 0.0, 0.3),
    "frozen_stages": 1,
}
_VIT: Config = {"type": "opsin.MixViT"}
_VIT_LARGE: Config = {
    "type": "opsin.MixViT",
    "dim": 1024,
    "depth": 24,
    "num_heads": 16,
    "search_size": 384,
    "template_size": 192,
}
_CONVMAE: Config = {"type": "opsin.MixConvMAE"}
_CONVMAE_LARGE: Config = {
    "type": "opsin.MixConvMAE",
    "dims": (384, 768, 1024),
    "depths": (2, 2, 20),
    "num_heads": 16,
    "search_size": 384,
    "template_size": 192,
}
_CORNER: Config = {"type": "opsin.CornerHead"}
_PYRAMID: Config = {"type": "opsin.PyramidCornerHead"}

_BODIES: dict[str, tuple[Config, Config]] = {
    "mixformer_cvt": (_CVT, _CORNER),
    "mixformer_cvt_large": (_CVT_LARGE, _CORNER),
    "mixvit_base": (_VIT, _PYRAMID),
    "mixvit_large": (_VIT_LARGE, _PYRAMID),
    "mixconvmae_base": (_CONVMAE, _PYRAMID),
    "mixconvmae_large": (_CONVMAE_LARGE, _PYRAMID),
}

# The score head is trained on a frozen network, so online trackers have frozen norms in the box head.
VARIANTS: dict[str, Config] = {
    f"{name}{suffix}": {"backbone": backbone, "head": {**head, "freeze_bn": online}, "score": score}
    for name, (backbone, head) in _BODIES.items()
    for suffix, online, score in (("", True, {"type": "opsin.ScoreHead"}), ("_offline", False, None))
}

register_models("mixformer", MixFormer, VARIANTS)
