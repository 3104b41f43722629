"""The image side of open_clip's ConvNeXt models: opsin's ConvNeXt trunk and a two-layer projection.

Image (B, 3, H, W) to the stages' bare maps res2 … res5 at strides 4, 8, 16, 32. A vector for the common space
with the texts is made from the mean of res5 under a mask: the trunk's last norm, then the projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from opsin.core.backbones.convnext import ARCHS, ConvNeXtClassifier
from opsin.core.published import Tensors
from opsin.segmentation.open_vocabulary.models.mask_pooling import mask_pool


class ConvNeXtVisual(nn.Module):
    """Trunk and projection.

    Args:
        arch: of `opsin.ConvNeXtClassifier`.
        embed_dim: width of the common space.
    """

    def __init__(self, arch: str | Mapping[str, Sequence[int]], embed_dim: int) -> None:
        super().__init__()
        self.trunk = ConvNeXtClassifier(arch, num_classes=0)
        self.head = nn.ModuleDict({"mlp": _Projection(self.trunk.num_features, embed_dim)})
        dims = ARCHS[arch]["dims"] if isinstance(arch, str) else arch["dims"]
        self.channels = tuple(dims)

    def forward(self, image: Tensor) -> list[Tensor]:
        """res2 … res5 of a normalised image (B, 3, H, W)."""
        maps = []
        x = image
        for downsample, blocks in zip(self.trunk.downsample_layers, self.trunk.stages, strict=True):
            x = blocks(downsample(x))
            maps.append(x)
        return maps

    def embed_masks(self, res5: Tensor, masks: Tensor) -> Tensor:
        """(B, Q, embed_dim) of what mask logits (B, Q, h, w) cover."""
        embedded: Tensor = self.head["mlp"](self.trunk.norm(mask_pool(res5, masks)))
        return embedded

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of open_clip's `visual.…`, without that prefix, whose trunk has timm's names."""
        trunk = {n.removeprefix("trunk."): t for n, t in tensors.items() if n.startswith("trunk.")}
        rest = {n: t for n, t in tensors.items() if not n.startswith("trunk.")}
        return {f"trunk.{n}": t for n, t in self.trunk.from_published(trunk).items()} | rest


class _Projection(nn.Module):
    """Linear, GELU, linear without bias; the width between is twice the output's."""

    def __init__(self, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * embed_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * embed_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out
