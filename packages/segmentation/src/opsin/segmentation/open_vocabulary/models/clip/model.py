"""A frozen CLIP: image pyramid, embeddings of masked regions, embeddings of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.published import Tensors, load_published
from opsin.segmentation.open_vocabulary.models.clip.convnext import ConvNeXtVisual
from opsin.segmentation.open_vocabulary.models.clip.resnet import ResNetVisual
from opsin.segmentation.open_vocabulary.models.clip.text import TextTower

VISUAL: dict[str, type[ConvNeXtVisual] | type[ResNetVisual]] = {
    "convnext": ConvNeXtVisual,
    "resnet": ResNetVisual,
}
CLIP_ARCHS: dict[str, dict[str, Any]] = {
    "convnext_large_d_320": {
        "embed_dim": 768,
        "visual": {"type": "convnext", "arch": "large"},
        "text": {"width": 768, "layers": 16, "heads": 12, "vocab_size": 49408},
    },
    "RN50x64": {
        "embed_dim": 1024,
        "visual": {"type": "resnet", "layers": (3, 15, 36, 10), "width": 128, "image_size": 448},
        "text": {
            "width": 1024,
            "layers": 12,
            "heads": 16,
            "vocab_size": 49408,
            "hidden_act": "quick_gelu",
        },
    },
}
# Of OpenAI's files; numbers that follow from the shapes.
IGNORED = ("input_resolution", "context_length", "vocab_size", "attn_mask")


class CLIP(nn.Module):
    """Image side, text side, and the scale of their cosines. It never trains.

    No parameter gets a gradient, and it is always in eval mode.

    Args:
        arch: a name of `CLIP_ARCHS`, or dict(embed_dim=…, visual=dict(type=…), text=dict(…)).
        checkpoint: open_clip's or OpenAI's file; random weights without one.
        tokenizer: file of the tokeniser, see `load_tokenizer`.

    Raises:
        UserError: for an unknown arch, or a file that is missing or of another model.
    """

    mean = (122.7709383, 116.7460125, 104.09373615)  # RGB, 0..255
    std = (68.5005327, 66.6321579, 70.32316305)

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "convnext_large_d_320",
        *,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(arch, str):
            if arch not in CLIP_ARCHS:
                raise unknown("CLIP arch", arch, CLIP_ARCHS)
            arch = CLIP_ARCHS[arch]
        visual = dict(arch["visual"])
        kind = visual.pop("type")
        if kind not in VISUAL:
            raise unknown("CLIP image side", kind, VISUAL)
        self.embed_dim = int(arch["embed_dim"])
        self.visual = VISUAL[kind](embed_dim=self.embed_dim, **visual)
        self.text = TextTower(self.embed_dim, tokenizer=tokenizer, **arch["text"])
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log())
        if checkpoint is not None:
            load_published(self, checkpoint)
        self.requires_grad_(False)
        super().train(False)

    @property
    def channels(self) -> Sequence[int]:
        """Channels of res2 … res5."""
        return self.visual.channels

    def train(self, mode: bool = True) -> CLIP:
        """Stays in eval mode whatever `mode` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> list[Tensor]:
        """res2 … res5 of an image (B, 3, H, W), RGB normalised by `mean` and `std`."""
        maps: list[Tensor] = self.visual(image)
        return maps

    @torch.no_grad()
    def embed_masks(self, res5: Tensor, masks: Tensor) -> Tensor:
        """(B, Q, embed_dim) of what mask logits (B, Q, h, w) cover."""
        return self.visual.embed_masks(res5, masks)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of an open_clip or OpenAI file to those of this model.

        Raises:
            UserError: if the file has no image side, as transformers' CLIP files do not have under this name.
        """
        tensors = {n: t for n, t in tensors.items() if n not in IGNORED}
        visual = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
        if not visual:
            raise UserError("this CLIP file has no visual.*", "give open_clip's or OpenAI's state dict")
        text = {
            n: t
            for n, t in tensors.items()
            if not n.startswith("visual.") and n not in ("logit_scale", "logit_bias")
        }
        convert = getattr(self.visual, "from_published", dict)
        converted = {f"visual.{n}": t.float() for n, t in convert(visual).items()}
        converted |= {f"text.{n}": t.float() for n, t in self.text.from_published(text).items()}
        scale = tensors.get("logit_scale", self.logit_scale.detach())
        return converted | {"logit_scale": scale.float()}
