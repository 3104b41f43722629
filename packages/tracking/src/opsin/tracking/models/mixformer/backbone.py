"""What MixFormer's three backbones have in common."""

from __future__ import annotations

from torch import Tensor, nn

from opsin.tracking.models.mixformer.memory import TemplateMemory


class MixedBackbone(nn.Module):
    """Encodes templates once and every search region against them.

    Attributes:
        channels: C of the maps.
        stride: pixels a cell of the maps.
    """

    channels: int
    stride: int

    def encode_templates(self, templates: Tensor) -> TemplateMemory:
        """Normalised crops (B, T, 3, h, w), the first frame's first, to what search regions need of them."""
        raise NotImplementedError(f"{type(self).__name__} does not say how templates are encoded")

    def encode_search(self, search: Tensor, memory: TemplateMemory) -> Tensor:
        """Normalised crops (B, 3, H, W) to maps (B, C, H / stride, W / stride)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how search regions are encoded")


def to_tokens(maps: Tensor) -> Tensor:
    """(M, C, H, W) to (M, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(M, H * W, C) to (M, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
